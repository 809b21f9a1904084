//! What can be asked of the admin listener, and told to it. Answers are JSON but for probes and metrics.

use std::str;

use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder,
    http::header,
    web::{self, Bytes, Data, ServiceConfig},
};
use serde_json::json;

use super::{
    Admin,
    metrics::{self, Format},
    state,
};
use crate::{
    control::{Change, Stop},
    health::Probe,
    journal::Severity,
};

/// What is where.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(reading("/state", show_state))
        .service(reading("/info", show_info))
        .service(reading("/metrics", show_metrics))
        .service(reading("/health/liveness", probe))
        .service(reading("/health/readiness", probe))
        .service(reading("/_/health", probe))
        .service(reading("/_/ready", probe))
        .service(reading("/log-level", show_level).route(web::post().to(set_level)))
        .service(web::resource("/swap").route(web::post().to(swap)))
        .service(web::resource("/rollback").route(web::post().to(roll_back)))
        .service(web::resource("/drain").route(web::post().to(drain)))
        .default_service(web::to(nothing));
}

fn reading<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path).route(web::get().to(handler.clone())).route(web::head().to(handler))
}

async fn show_state(admin: Data<Admin>) -> HttpResponse {
    HttpResponse::Ok().json(state::state(&admin).await)
}

async fn show_info(admin: Data<Admin>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(admin.plugin().info())
}

async fn show_metrics(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    let accepts = request.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
    let format = Format::wanted(accepts);
    let is_ready = admin.health.readiness().await.is_ok();
    match metrics::text(&admin, is_ready, format) {
        Ok(text) => HttpResponse::Ok().content_type(format.content_type()).body(text),
        Err(_) => {
            HttpResponse::InternalServerError().json(json!({ "error": "the metrics can't be written" }))
        }
    }
}

async fn probe(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    let ready = match Probe::at(request.path()) {
        Some(Probe::Readiness) => admin.health.readiness().await,
        Some(Probe::Liveness) | None => Ok(()),
    };
    match ready {
        Ok(()) => HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n"),
        Err(why) => HttpResponse::ServiceUnavailable()
            .content_type("text/plain; charset=utf-8")
            .body(format!("not ready: {why}\n")),
    }
}

async fn show_level(admin: Data<Admin>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "level": admin.journal.level().as_str() }))
}

async fn set_level(body: Bytes, admin: Data<Admin>) -> HttpResponse {
    let level = str::from_utf8(&body).map_err(|_| "the body is no text".to_owned());
    match level.and_then(|level| level.trim().parse::<Severity>()) {
        Ok(level) => {
            admin.journal.set_level(level);
            show_level(admin).await
        }
        Err(err) => HttpResponse::BadRequest().json(json!({ "error": err })),
    }
}

async fn swap(admin: Data<Admin>) -> HttpResponse {
    change(&admin, Change::Reload).await
}

async fn roll_back(admin: Data<Admin>) -> HttpResponse {
    change(&admin, Change::RollBack).await
}

/// Orders a change and waits for what comes of it. Nothing of the request is in the order.
async fn change(admin: &Admin, change: Change) -> HttpResponse {
    let outcome = admin.control.change(change);
    let outcome = web::block(move || outcome.recv()).await;
    match outcome {
        Ok(Ok(Ok(changed))) => {
            HttpResponse::Ok().json(json!({ "generation": changed.generation, "swapped": changed.swapped }))
        }
        Ok(Ok(Err(why))) => HttpResponse::UnprocessableEntity().json(json!({ "error": why })),
        Ok(Err(_)) | Err(_) => {
            HttpResponse::Conflict().json(json!({ "error": "the effe is on its way out, or not up yet" }))
        }
    }
}

async fn drain(admin: Data<Admin>) -> HttpResponse {
    admin.journal.notice("drain: told so by the admin listener");
    let stop = Stop::wanted();
    admin.control.stop(stop);
    admin.ender.watch(stop);
    HttpResponse::Accepted().json(json!({ "state": "draining" }))
}

async fn nothing() -> HttpResponse {
    let error = "there are GET /state, /info, /metrics, /health/liveness, /health/readiness, /log-level; \
                 POST /swap, /rollback, /drain, /log-level";
    HttpResponse::NotFound()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "error": error }))
}
