// Calls a function through @aws-sdk/client-lambda. Arguments: the endpoint, a function's name, and the endpoint of an
// effe that runs one request at a time.
"use strict"
const assert = require("node:assert/strict")
const { LambdaClient, InvokeCommand, InvokeWithResponseStreamCommand } = require("@aws-sdk/client-lambda")

const [endpoint, name, narrow] = process.argv.slice(2)
const client = endpoint => new LambdaClient({
  endpoint, region: "eu-west-1", maxAttempts: 1, credentials: { accessKeyId: "any", secretAccessKey: "any" },
})
const lambda = client(endpoint)
const text = bytes => Buffer.from(bytes).toString()
const json = bytes => JSON.parse(text(bytes))
const invoke = (payload, more = {}, by = lambda) =>
  by.send(new InvokeCommand({ FunctionName: name, Payload: JSON.stringify(payload), ...more }))

async function refused(kind, status, call) {
  await assert.rejects(call, err => {
    assert.deepEqual([err.name, err.$metadata.httpStatusCode], [kind, status])
    return true
  })
}

async function streamed(payload, more = {}) {
  const command = { FunctionName: name, Payload: JSON.stringify(payload), ...more }
  const answer = await lambda.send(new InvokeWithResponseStreamCommand(command))
  let said = "", end
  for await (const event of answer.EventStream) {
    assert(!end, "nothing follows the end")
    if (event.PayloadChunk) said += text(event.PayloadChunk.Payload)
    end = event.InvokeComplete
  }
  return [said, end]
}

async function main() {
  let answer = await invoke({ a: [1, "ü"] })
  assert.deepEqual([answer.StatusCode, answer.FunctionError, json(answer.Payload)], [200, undefined, { a: [1, "ü"] }])
  assert.deepEqual(json((await lambda.send(new InvokeCommand({ FunctionName: name }))).Payload), {})

  const arn = `arn:aws:lambda:eu-west-1:123456789012:function:${name}`
  for (const known of [arn, `${arn}:$LATEST`, `${name}:0.1.0`]) {
    assert.equal(json((await invoke(1, { FunctionName: known })).Payload), 1)
  }
  assert.equal((await invoke(1, { Qualifier: "0.1.0" })).ExecutedVersion, "0.1.0")
  for (const unknown of ["another", `${name}:7`]) {
    await refused("ResourceNotFoundException", 404, () => invoke(1, { FunctionName: unknown }))
  }

  const context = JSON.stringify({ custom: { a: "b" } })
  answer = await invoke({ do: "facts" }, { ClientContext: Buffer.from(context).toString("base64") })
  assert.equal(json(answer.Payload).invocation.client, context)

  for (const [what, kind] of [["fail", "Effe.LambdaFailed"], ["panic", "Effe.LambdaPanicked"], ["type", "OrderError"]]) {
    answer = await invoke({ do: what })
    assert.deepEqual([answer.StatusCode, answer.FunctionError, json(answer.Payload).errorType], [200, "Unhandled", kind])
  }
  answer = await invoke({ do: "log", say: "me" }, { LogType: "Tail" })
  assert.match(Buffer.from(answer.LogResult, "base64").toString(), /a line for.*\n(.|\n)*REPORT RequestId/)
  assert.equal((await invoke(1, { InvocationType: "DryRun" })).StatusCode, 204)
  assert.equal((await invoke(1, { InvocationType: "Event" })).StatusCode, 202)

  await refused("InvalidRequestContentException", 400, () => invoke(0, { Payload: "{" }))
  await refused("RequestTooLargeException", 413, () => invoke("x".repeat(6 << 20)))

  const event = {
    version: "2.0", rawPath: "/echo", rawQueryString: "", headers: {},
    requestContext: { http: { method: "POST" } }, body: "hi", isBase64Encoded: false,
  }
  answer = json((await invoke(event)).Payload)
  assert.deepEqual([answer.statusCode, answer.body], [200, "hi"])

  assert.deepEqual(await streamed({ do: "stream" }), ["one,two,three", {}])
  let [said, end] = await streamed({ do: "break" })
  assert.deepEqual([said, end.ErrorCode], ["one,", "Effe.AnswerBrokenOff"]);
  [said, end] = await streamed({ do: "log", say: "me" }, { LogType: "Tail" })
  assert.match(Buffer.from(end.LogResult, "base64").toString(), /a line for/)

  const numbers = [...Array(100).keys()]
  const answers = await Promise.all(numbers.map(async n => json((await invoke({ do: "sleep", ms: 50, n })).Payload).n))
  assert.deepEqual(answers, numbers)

  const full = client(narrow)
  await invoke({ do: "sleep", ms: 5000 }, { InvocationType: "Event" }, full)
  await refused("TooManyRequestsException", 429, async () => { for (;;) await invoke(1, {}, full) })
  console.log("called")
}

main().catch(err => { console.error(err); process.exit(1) })
