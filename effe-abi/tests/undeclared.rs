//! A lambda that ends its answer before Run returns, and hasn't declared that it does.

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export, testing::Effe};

struct Hasty;

impl Lambda for Hasty {
    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Hasty)
    }

    fn run(hasty: Started<Self>, _: &Request, response: &mut Response) -> Result {
        hasty?;
        response.status(202).text("taken").end()?;
        Ok(())
    }
}

export!(Hasty);

#[test]
fn to_end_an_answer_early_without_declaring_it_is_an_error_that_says_what_to_declare() {
    let effe = Effe::of(&LAMBDA);
    for answer in [effe.get("/"), effe.get("/")] {
        assert_eq!((answer.status, answer.text().as_str(), answer.early), (202, "taken", false));
        let failure = answer.failure.unwrap_or_default();
        assert!(failure.starts_with("Response::end needs `const OPTIONS: Options = "), "{failure}");
        assert!(
            failure.contains("answers_early()`") && failure.contains("tests/undeclared.rs:"),
            "{failure}"
        );
    }
}
