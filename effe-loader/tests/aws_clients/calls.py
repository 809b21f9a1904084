"""Calls a function through boto3, as any program does that uses it. Arguments: the endpoint, and a function's name."""

import base64
import concurrent.futures
import json
import os
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, name = sys.argv[1:3]
token = sys.argv[3] if len(sys.argv) > 3 else "any"
n_calls = int(os.environ.get("CALLS", "100"))
config = Config(max_pool_connections=n_calls, retries={"max_attempts": 1}, read_timeout=30)
client = boto3.client("lambda", endpoint_url=endpoint, region_name="eu-west-1", config=config,
                      aws_access_key_id=token, aws_secret_access_key="any")


def invoke(payload, function=name, **arguments):
    return client.invoke(FunctionName=function, Payload=json.dumps(payload), **arguments)


def refused(kind, status, call):
    try:
        call()
    except ClientError as err:
        assert err.response["Error"]["Code"] == kind, err.response
        assert err.response["ResponseMetadata"]["HTTPStatusCode"] == status, err.response
        return err.response
    raise AssertionError(f"{kind} was expected")


# RequestResponse
answer = invoke({"a": [1, "ü"]})
assert answer["StatusCode"] == 200 and "FunctionError" not in answer, answer
assert answer["ExecutedVersion"] == "$LATEST", answer
assert json.load(answer["Payload"]) == {"a": [1, "ü"]}
assert json.load(client.invoke(FunctionName=name)["Payload"]) == {}
if len(sys.argv) > 3:
    print("called")
    sys.exit()

# Names
arn = f"arn:aws:lambda:eu-west-1:123456789012:function:{name}"
for function in [arn, f"{arn}:$LATEST", f"{name}:0.1.0", f"123456789012:function:{name}"]:
    assert json.load(invoke(1, function)["Payload"]) == 1, function
assert invoke(1, Qualifier="0.1.0")["ExecutedVersion"] == "0.1.0"
for function in ["another", f"{name}:7", "arn:aws:lambda:eu-west-1:123456789012:function:another"]:
    refused("ResourceNotFoundException", 404, lambda: invoke(1, function))

# What the function is told
context = {"custom": {"a": "b"}}
encoded = base64.b64encode(json.dumps(context).encode()).decode()
answer = invoke({"do": "facts"}, ClientContext=encoded)
invocation = json.load(answer["Payload"])["invocation"]
assert json.loads(invocation["client"]) == context, invocation
assert invocation["request_id"] == answer["ResponseMetadata"]["RequestId"], (invocation, answer)
assert invocation["arn"].endswith(f":function:{name}")
refused("InvalidRequestContentException", 400, lambda: invoke(1, ClientContext="%"))

# Errors
for do, kind in [("fail", "Effe.LambdaFailed"), ("panic", "Effe.LambdaPanicked"), ("type", "OrderError")]:
    answer = invoke({"do": do})
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled"), answer
    assert json.load(answer["Payload"])["errorType"] == kind
answer = invoke({"do": "sleep"})
assert "Task timed out after 2.00 seconds" in json.load(answer["Payload"])["errorMessage"]
answer = invoke({"do": "large", "bytes": 7 << 20})
assert json.load(answer["Payload"])["errorType"] == "Function.ResponseSizeTooLarge"

# The log
answer = invoke({"do": "log", "say": "me"}, LogType="Tail")
log = base64.b64decode(answer["LogResult"]).decode()
assert "a line for" in log and "another" in log and "REPORT RequestId" in log, log
assert "LogResult" not in invoke(1)

# Other types of invocation
assert client.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204
assert invoke({"do": "log", "say": "nobody waits"}, InvocationType="Event")["StatusCode"] == 202

# Bad payloads
refused("InvalidRequestContentException", 400, lambda: client.invoke(FunctionName=name, Payload="{"))
refused("RequestTooLargeException", 413, lambda: invoke("x" * (6 << 20)))
refused("RequestTooLargeException", 413, lambda: invoke("x" * (1 << 20), InvocationType="Event"))

# An event in an HTTP shape
event = {"version": "2.0", "rawPath": "/echo", "rawQueryString": "", "headers": {},
         "requestContext": {"http": {"method": "POST"}}, "body": "hi", "isBase64Encoded": False}
answer = json.load(invoke(event)["Payload"])
assert (answer["statusCode"], answer["body"]) == (200, "hi"), answer


# Streams
def streamed(payload, **arguments):
    answer = client.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(payload), **arguments)
    events = list(answer["EventStream"])
    pieces = b"".join(event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event)
    assert "InvokeComplete" in events[-1], events
    return pieces, events[-1]["InvokeComplete"]


assert streamed({"do": "stream"}) == (b"one,two,three", {})
pieces, end = streamed({"do": "break"})
assert (pieces, end["ErrorCode"]) == (b"one,", "Effe.AnswerBrokenOff"), end
pieces, end = streamed({"do": "panic"})
assert (pieces, end["ErrorCode"]) == (b"", "Effe.LambdaPanicked"), end
pieces, end = streamed({"do": "log", "say": "me"}, LogType="Tail")
assert pieces == b'"me"' and "a line for" in base64.b64decode(end["LogResult"]).decode()
refused("ResourceNotFoundException", 404, lambda: client.invoke_with_response_stream(FunctionName="another"))

# Many at once
with concurrent.futures.ThreadPoolExecutor(n_calls) as pool:
    answers = pool.map(lambda n: json.load(invoke({"do": "sleep", "ms": 50, "n": n})["Payload"])["n"], range(n_calls))
    assert list(answers) == list(range(n_calls)), "none is lost, none is another's"

# An effe that runs one request at a time
if "NARROW" in os.environ:
    full = boto3.client("lambda", endpoint_url=os.environ["NARROW"], region_name="eu-west-1", config=config,
                        aws_access_key_id=token, aws_secret_access_key="any")
    full.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps({"do": "sleep", "ms": 5000}))

    def until_refused():
        while True:
            full.invoke(FunctionName=name, Payload="1")

    refused("TooManyRequestsException", 429, until_refused)
print("called")
