//! The guest book in a plain actix-web App, one worker: `control-guestbook-actix PATH PORT`. What waits is handed to
//! `web::block`, as actix-web's documentation of databases shows it.

use actix_web::{App, HttpResponse, HttpServer, error::ErrorInternalServerError, http::header, rt, web};
use control_guestbook::{Draft, Failed, Pool, Wanted, add, arguments, newest, pool};

async fn show(pool: web::Data<Pool>, wanted: web::Query<Wanted>) -> actix_web::Result<HttpResponse> {
    let entries = web::block(move || newest(&pool, &wanted)).await?.map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::VARY, "accept"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(entries))
}

async fn sign(pool: web::Data<Pool>, draft: web::Json<Draft>) -> actix_web::Result<HttpResponse> {
    let draft = match draft.checked() {
        Ok(draft) => draft,
        Err(reason) => return Ok(HttpResponse::BadRequest().body(reason)),
    };
    let kept = web::block(move || add(&pool, &draft)).await?.map_err(ErrorInternalServerError)?;
    let mut response = HttpResponse::Created();
    if let Some(cookie) = kept.cookie() {
        response.insert_header((header::SET_COOKIE, cookie));
    }
    Ok(response.json(kept))
}

fn main() -> Result<(), Failed> {
    let (path, port) = arguments();
    let pool = web::Data::new(pool(path)?);
    rt::System::new().block_on(async {
        let app = move || {
            App::new().app_data(pool.clone()).route("/", web::get().to(show)).route("/", web::post().to(sign))
        };
        HttpServer::new(app).workers(1).bind(("127.0.0.1", port))?.run().await
    })?;
    Ok(())
}
