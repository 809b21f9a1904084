use serde_json::json;

use super::*;

fn event(value: &Value) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap())
}

fn unfolded(value: &Value) -> Unfolded {
    unfold(&event(value)).unwrap()
}

/// All values of a header.
fn values(request: &Unfolded, name: &'static str) -> Vec<String> {
    request.fields.get_all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

fn gateway1() -> Value {
    json!({
        "version": "1.0",
        "resource": "/{proxy+}",
        "path": "/a b/ü",
        "httpMethod": "POST",
        "headers": {"x-one": "2", "Host": "api.example"},
        "multiValueHeaders": {"x-one": ["1", "2"], "Host": ["api.example"], "X-Forwarded-Proto": ["https"]},
        "queryStringParameters": {"q": "2"},
        "multiValueQueryStringParameters": {"q": ["a&b=c", "ü d"], "e": [""]},
        "pathParameters": {"proxy": "a b/ü"},
        "stageVariables": null,
        "requestContext": {
            "stage": "prod", "path": "/prod/a", "httpMethod": "POST",
            "identity": {"sourceIp": "192.0.2.1", "userAgent": null}
        },
        "body": "hello",
        "isBase64Encoded": false
    })
}

fn gateway2() -> Value {
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/prod/my/path%20x",
        "rawQueryString": "p=1&p=2&q=a%26b",
        "cookies": ["a=1", "b=2"],
        "headers": {"x-one": "1,2", "x-forwarded-proto": "https"},
        "queryStringParameters": {"p": "1,2", "q": "a&b"},
        "requestContext": {
            "stage": "prod", "domainName": "id.execute-api.eu-west-1.amazonaws.com",
            "http": {"method": "PUT", "path": "/prod/my/path x", "protocol": "HTTP/1.1", "sourceIp": "2001:db8::1"}
        },
        "body": "aGkA/w==",
        "isBase64Encoded": true
    })
}

fn balancer(headers: &Value, query: &Value, is_multi: bool) -> Value {
    let context =
        json!({"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/a/b"}});
    let mut event = json!({"requestContext": context, "httpMethod": "GET", "path": "/p%2Fq", "body": "", "isBase64Encoded": false});
    let (names, queries) = match is_multi {
        true => ("multiValueHeaders", "multiValueQueryStringParameters"),
        false => ("headers", "queryStringParameters"),
    };
    (event[names], event[queries]) = (headers.clone(), query.clone());
    event
}

#[test]
fn payload_1_has_decoded_paths_and_parameters_and_every_value() {
    let request = unfolded(&gateway1());
    assert_eq!((request.shape, &request.method), (Shape::Gateway1, &Method::POST));
    assert_eq!(request.target, "/a%20b/%C3%BC?e=&q=a%26b%3Dc&q=%C3%BC%20d");
    assert_eq!(values(&request, "x-one"), ["1", "2"]);
    assert_eq!(values(&request, "host"), ["api.example"]);
    assert_eq!(values(&request, "content-length"), ["5"]);
    assert_eq!((&*request.body, request.is_tls), (&b"hello"[..], true));
    assert_eq!(request.peer, Some("192.0.2.1".parse().unwrap()));
}

#[test]
fn payload_1_without_lists_has_one_value_each() {
    let mut event = gateway1();
    (event["multiValueHeaders"], event["multiValueQueryStringParameters"]) = (Value::Null, Value::Null);
    event["headers"]["Host"] = "id.execute-api.{dns_suffix}".into();
    let request = unfolded(&event);
    assert_eq!((values(&request, "x-one"), request.target.query()), (vec!["2".to_owned()], Some("q=2")));
    assert_eq!(values(&request, "host"), ["lambda"], "what is no host is as none");
}

#[test]
fn payload_2_loses_its_stage_and_keeps_its_query_and_cookies() {
    let request = unfolded(&gateway2());
    assert_eq!((request.shape, request.method.as_str()), (Shape::Gateway2, "PUT"));
    assert_eq!(request.target, "/my/path%20x?p=1&p=2&q=a%26b");
    assert_eq!(
        (values(&request, "cookie"), values(&request, "x-one")),
        (vec!["a=1; b=2".to_owned()], vec!["1,2".to_owned()])
    );
    assert_eq!(values(&request, "host"), ["id.execute-api.eu-west-1.amazonaws.com"]);
    assert_eq!(&*request.body, b"hi\0\xff");
    assert_eq!(request.peer, Some("2001:db8::1".parse().unwrap()));
}

#[test]
fn stages_are_left_out_where_they_are_in_the_path() {
    for (stage, domain, path, expected) in [
        ("$default", "id.execute-api.eu-west-1.amazonaws.com", "/a", "/a"),
        ("prod", "id.execute-api.eu-west-1.amazonaws.com", "/prod", "/"),
        ("prod", "id.execute-api.eu-west-1.amazonaws.com", "/prod/", "/"),
        ("prod", "id.execute-api.eu-west-1.amazonaws.com", "/production/a", "/production/a"),
        ("prod", "id.execute-api.eu-west-1.amazonaws.com", "/a", "/a"),
        ("prod", "api.example", "/prod/a", "/prod/a"),
        ("$default", "id.lambda-url.eu-west-1.on.aws", "", "/"),
    ] {
        let mut event = gateway2();
        event["rawPath"] = path.into();
        (event["requestContext"]["stage"], event["requestContext"]["domainName"]) =
            (stage.into(), domain.into());
        assert_eq!(unfolded(&event).target.path(), expected, "{stage} {domain} {path}");
    }
}

#[test]
fn load_balancers_have_one_value_or_all_and_send_queries_as_they_came() {
    let single = balancer(&json!({"x-one": "1", "host": "lb"}), &json!({"q": "a%26b+c"}), false);
    let request = unfolded(&single);
    assert_eq!(request.shape, Shape::LoadBalancer { is_multi: false });
    assert_eq!(
        (request.target.to_string().as_str(), values(&request, "host")),
        ("/p%2Fq?q=a%26b+c", vec!["lb".to_owned()])
    );
    let multi = balancer(&json!({"x-one": ["1", "2"]}), &json!({"q": ["1", "2"]}), true);
    let request = unfolded(&multi);
    assert_eq!(request.shape, Shape::LoadBalancer { is_multi: true });
    assert_eq!((request.target.query(), values(&request, "x-one").len()), (Some("q=1&q=2"), 2));
}

#[test]
fn vpc_lattice_has_all_values_in_one_member() {
    let event = json!({
        "version": "2.0", "path": "/a%20b", "method": "POST",
        "headers": {"host": ["svc.example"], "x-one": ["1", "2"]},
        "queryStringParameters": {"q": ["a%26b", "2"]},
        "requestContext": {"serviceNetworkArn": "arn:aws:vpc-lattice:eu-west-1:1:servicenetwork/sn-0"},
        "body": "aGk=", "isBase64Encoded": true
    });
    let request = unfolded(&event);
    assert_eq!((request.shape, request.method.as_str()), (Shape::Lattice, "POST"));
    assert_eq!(request.target, "/a%20b?q=a%26b&q=2");
    assert_eq!(
        (values(&request, "x-one"), values(&request, "host")),
        (vec!["1".to_owned(), "2".to_owned()], vec!["svc.example".to_owned()])
    );
    assert_eq!(&*request.body, b"hi");
    assert_eq!(
        folded(Shape::Lattice, &HEADERS, b"hi"),
        json!({"statusCode": 201, "headers": {"x-a": "1, 2", "set-cookie": "a=1, 2", "Set-cookie": "b=2"},
               "isBase64Encoded": false, "body": "hi"})
    );
}

#[test]
fn other_events_are_posted_as_they_are() {
    let mut authorizer = gateway1();
    authorizer["methodArn"] = "arn:aws:execute-api:eu-west-1:1:a/prod/GET/".into();
    let mut authorizer2 = gateway2();
    authorizer2["routeArn"] = "arn:aws:execute-api:eu-west-1:1:a/prod/GET/".into();
    let websocket =
        json!({"requestContext": {"connectionId": "a=", "eventType": "MESSAGE", "stage": "p"}, "body": "x"});
    for value in [
        json!({"Records": [{"eventSource": "aws:sqs", "body": "a"}]}),
        json!({"source": "aws.events", "detail": {}}),
        json!(null),
        json!(1),
        json!("a"),
        json!([1, 2]),
        json!({}),
        json!({"httpMethod": 5, "path": "/", "requestContext": {}}),
        json!({"httpMethod": "GET", "path": "/"}),
        authorizer,
        authorizer2,
        websocket,
    ] {
        let request = unfolded(&value);
        assert_eq!(
            (request.shape, &request.method, request.target.path()),
            (Shape::Other, &Method::POST, "/events")
        );
        assert_eq!(request.body, event(&value));
    }
    // A text that is no Unicode is not ours to read.
    let lone = Bytes::from_static(br#"{"Records":[{"body":"\ud800"}]}"#);
    assert_eq!(unfold(&lone).unwrap().body, lone);
}

/// What a test does to an event.
type Change = fn(&mut Value);

#[test]
fn what_no_request_can_say_is_an_error_with_a_reason() {
    let broken = |change: Change| {
        let mut value = gateway1();
        change(&mut value);
        unfold(&event(&value)).unwrap_err()
    };
    let cases: [(Change, &str); 8] = [
        (|event| event["httpMethod"] = "G E T".into(), "method"),
        (|event| event["httpMethod"] = "".into(), "method"),
        (|event| event["multiValueHeaders"] = json!({"a b": ["1"]}), "header that HTTP forbids: \"a b\""),
        (|event| event["multiValueHeaders"] = json!({"a": ["1\r\nb: 2"]}), "header that HTTP forbids"),
        (|event| event["multiValueHeaders"] = json!({"a": [1]}), "no text"),
        (|event| event["multiValueHeaders"] = json!([]), "no object"),
        (|event| event["body"] = json!({}), "body is no text"),
        (
            |event| {
                event["isBase64Encoded"] = true.into();
                event["body"] = "%".into()
            },
            "no base64",
        ),
    ];
    for (change, part) in &cases {
        let text = broken(*change);
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    }
    for bad in ["", "{", "{\"a\":", "\u{0}", "{}{}", "nul", "[1,]"] {
        let text = unfold(&Bytes::from(bad)).unwrap_err();
        assert!(text.contains("no JSON"), "{bad:?}: {text}");
    }
    let lone = br#"{"httpMethod":"GET","path":"/\udc00","requestContext":{}}"#;
    assert!(unfold(&Bytes::from_static(lone)).unwrap_err().contains("path is no text"));
    assert!(unfold(&Bytes::from_static(b"\"\xff\"")).is_err());
}

fn folded(shape: Shape, headers: &[(&'static str, &str)], body: &[u8]) -> Value {
    let fields = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    serde_json::from_slice(&fold(shape, http::StatusCode::CREATED, &fields, body)).unwrap()
}

const HEADERS: [(&str, &str); 5] =
    [("x-a", "1"), ("x-a", "2"), ("set-cookie", "a=1, 2"), ("set-cookie", "b=2"), ("connection", "close")];

#[test]
fn answers_have_the_shape_of_their_events() {
    let multi = json!({"x-a": ["1", "2"], "set-cookie": ["a=1, 2", "b=2"]});
    assert_eq!(
        folded(Shape::Gateway1, &HEADERS, b"hi"),
        json!({"statusCode": 201, "multiValueHeaders": multi, "isBase64Encoded": false, "body": "hi"})
    );
    assert_eq!(
        folded(Shape::Gateway2, &HEADERS, b"\xff\0"),
        json!({"statusCode": 201, "headers": {"x-a": "1, 2"}, "cookies": ["a=1, 2", "b=2"],
               "isBase64Encoded": true, "body": "/wA="})
    );
    assert_eq!(
        folded(Shape::LoadBalancer { is_multi: true }, &HEADERS, b""),
        json!({"statusCode": 201, "statusDescription": "201 Created", "multiValueHeaders": multi,
               "isBase64Encoded": false, "body": ""})
    );
    let single = folded(Shape::LoadBalancer { is_multi: false }, &HEADERS, "ü".as_bytes());
    assert_eq!(single["headers"], json!({"x-a": "1, 2", "set-cookie": "a=1, 2", "Set-cookie": "b=2"}));
    assert_eq!(single["body"], "ü");
    let compressed = folded(Shape::Gateway2, &[("content-encoding", "br")], b"text");
    assert_eq!((&compressed["isBase64Encoded"], &compressed["body"]), (&json!(true), &json!("dGV4dA==")));
}

#[test]
fn results_of_other_events_are_the_body() {
    let result = |body: &[u8]| fold(Shape::Other, http::StatusCode::OK, &Fields::NONE, body);
    assert_eq!(result(br#"{"batchItemFailures":[]}"#), br#"{"batchItemFailures":[]}"#);
    assert_eq!((result(b"plain"), result(b"")), (b"plain".to_vec(), b"null".to_vec()));
}

#[test]
fn a_streamed_answer_begins_with_its_head_and_eight_zeros() {
    let fields = [("set-cookie", &b"a=1"[..])].into_iter().collect();
    let bytes = prelude(http::StatusCode::OK, &fields);
    let head: Value = serde_json::from_slice(bytes.strip_suffix(&[0; 8]).unwrap()).unwrap();
    assert_eq!(head, json!({"statusCode": 200, "headers": {}, "cookies": ["a=1"]}));
}

#[test]
fn any_bytes_are_a_request_or_an_error() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let _ = unfold(&Bytes::from(bytes.clone()));
    });
    // The same within events: each of their texts replaced, and each event cut.
    let events = [gateway1(), gateway2(), balancer(&json!({"a": "b"}), &json!({"q": "1"}), false)];
    let texts = bolero::generator::produce::<(usize, usize, String, usize)>();
    bolero::check!().with_generator(texts).for_each(|(which, member, text, end)| {
        let mut value = events[which % events.len()].clone();
        let members = value.as_object_mut().unwrap();
        let key = members.keys().nth(member % members.len()).unwrap().clone();
        members[&key] = match &members[&key] {
            Value::Object(object) if member % 2 == 0 => {
                let keys = object.keys().map(|key| (key.clone(), Value::from(text.clone())));
                keys.chain([(text.clone(), text.clone().into())]).collect()
            }
            _ => text.clone().into(),
        };
        let bytes = event(&value);
        if let Ok(request) = unfold(&bytes) {
            assert!(request.target.path().starts_with('/'));
            assert!(request.fields.has("host"));
        }
        let _ = unfold(&bytes.slice(..end % bytes.len()));
    });
}

#[test]
fn any_parameter_and_body_comes_through() {
    let texts = bolero::generator::produce::<(String, Vec<u8>)>();
    bolero::check!().with_generator(texts).for_each(|(text, body)| {
        let mut value = gateway1();
        value["multiValueQueryStringParameters"] = json!({text.clone(): [text]});
        value["path"] = format!("/{text}").into();
        let request = unfolded(&value);
        let query = request.target.query().unwrap();
        let (name, parameter) = query.split_once('=').unwrap();
        assert_eq!((decoded(name), decoded(parameter)), (text.clone(), text.clone()));
        let answer = folded(Shape::Gateway2, &[], body);
        let text = answer["body"].as_str().unwrap();
        let back = match answer["isBase64Encoded"] == true {
            true => STANDARD.decode(text).unwrap(),
            false => text.as_bytes().to_vec(),
        };
        assert_eq!(back, *body);
    });
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(out).unwrap()
}
