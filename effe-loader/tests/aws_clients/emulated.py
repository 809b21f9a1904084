"""Has an emulator of Lambda's invoke a function for each event that AWS's crates publish, and checks what comes of it.
Arguments: the emulator's URL, whether the function tells of its requests (`tells`) or only answers (`answers`), and
directories of events."""

import base64
import json
import pathlib
import sys
import urllib.error
import urllib.request
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

url, kind, *directories = sys.argv[1:]
# Headers about a connection, or about the form of the body, are left out or made anew.
OURS = {"connection", "content-length", "expect", "trailer", "transfer-encoding", "upgrade", "cookie", "x-amzn-trace-id",
        "x-request-id"}


def invoke(event):
    request = urllib.request.Request(f"{url}/2015-03-31/functions/_/invocations", json.dumps(event).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as err:
        return err.code, err.read()


def shape(event):
    """As the guides of Lambda, API Gateway and load balancers tell events apart."""
    context = event.get("requestContext") if isinstance(event, dict) else None
    if not isinstance(context, dict) or isinstance(event.get("methodArn") or event.get("routeArn"), str):
        return None
    if isinstance(event.get("rawPath"), str) and isinstance(context.get("http"), dict):
        return "2.0"
    if isinstance(event.get("method"), str) and "serviceNetworkArn" in context:
        return "lattice"
    if not isinstance(event.get("httpMethod"), str) or not isinstance(event.get("path"), str):
        return None
    return "balancer" if "elb" in context else "1.0"


def pairs(event, many, one):
    """Names and values of one of the two members."""
    lists = event.get(many) or event.get(one) or {}
    lists = {name: values if isinstance(values, list) else [values] for name, values in lists.items()}
    return [(name, value) for name, values in lists.items() for value in values if value is not None]


def check_request(event, which, told):
    """That the request is what the event says."""
    context = event["requestContext"]
    split = urlsplit(told["target"])
    if which == "2.0":
        method, path = context["http"]["method"], event["rawPath"]
        stage = context.get("stage")
        if ".execute-api." in (context.get("domainName") or ".execute-api.") and stage != "$default":
            path = path.removeprefix(f"/{stage}") or "/"
        query = parse_qsl(event.get("rawQueryString") or "", keep_blank_values=True)
        headers = [(name, value) for name, value in (event.get("headers") or {}).items()]
        if event.get("cookies"):
            assert told["headers"]["cookie"] == ["; ".join(event["cookies"])], told
    else:
        method, path = event.get("httpMethod") or event["method"], event["path"]
        query = pairs(event, "multiValueQueryStringParameters", "queryStringParameters")
        if which != "1.0":
            query = [(unquote_plus(name), unquote_plus(value)) for name, value in query]
        headers = pairs(event, "multiValueHeaders", "headers")
    assert told["method"] == method, (told, method)
    assert unquote(split.path) == unquote(path or "/"), (told, path)
    assert sorted(parse_qsl(split.query, keep_blank_values=True)) == sorted(query), (told, query)
    for name, value in headers:
        values = told["headers"].get(name.lower(), [])
        # The console's own tests have a pattern for a host.
        is_ours = name.lower() in OURS or name.lower() == "host" and "{" in value
        assert is_ours or value.strip() in values, (name, value, values)
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        body = base64.b64decode(body).decode(errors="replace")
    assert told["body"] == body, (told["body"], body)


def check_answer(event, which, answer):
    """That the answer has the event's shape; its body."""
    assert answer["statusCode"] == 200 or kind == "answers", answer
    if which == "2.0":
        assert isinstance(answer["headers"], dict) and isinstance(answer["cookies"], list), answer
    elif which == "1.0":
        assert isinstance(answer["multiValueHeaders"], dict), answer
    elif which == "lattice":
        assert isinstance(answer["headers"], dict), answer
    else:
        assert answer["statusDescription"].startswith(str(answer["statusCode"])), answer
        wanted = "headers" if event.get("multiValueHeaders") is None else "multiValueHeaders"
        assert isinstance(answer[wanted], dict), answer
    return answer["body"]


n_requests, n_others, failed = 0, 0, []
for path in sorted(path for directory in directories for path in pathlib.Path(directory).glob("*.json")):
    try:
        event = json.loads(path.read_text())
    except ValueError:
        # One that is no JSON is no event.
        continue
    status, body = invoke(event)
    which = shape(event)
    try:
        if kind == "answers" and which and "{" in str((event.get("headers") or {}).get("Host")):
            # lambda_http panics at a host that is none.
            assert json.loads(body)["errorType"] == "Effe.LambdaPanicked", (status, body)
            n_others += 1
        elif which:
            assert status == 200, (status, body)
            told = check_answer(event, which, json.loads(body))
            if kind == "tells":
                check_request(event, which, json.loads(told))
            n_requests += 1
        elif kind == "tells":
            assert (status, json.loads(body)) == (200, event), (status, body)
            n_others += 1
        else:
            # What is no request to lambda_http either is an error of the function.
            answer = json.loads(body)
            is_refused = status == 500 and answer["errorType"] == "Effe.EventMisfit"
            assert is_refused or answer["statusCode"], (status, body)
            n_others += 1
    except (AssertionError, KeyError, TypeError, ValueError) as err:
        failed.append(f"{path.name}: {err!r}")
if failed:
    raise SystemExit("\n".join(failed))
assert n_requests > 10, "the events are where they were"
if kind == "tells":
    with urllib.request.urlopen(f"{url}/some/path?a=1&a=2") as answer:
        told = json.load(answer)
    assert (told["method"], told["target"]) == ("GET", "/some/path?a=1&a=2"), told
print(f"{n_requests} requests and {n_others} other events")
