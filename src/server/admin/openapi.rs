//! `GET /v1/openapi.json`: the calls, described in OpenAPI 3.1 from their types.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::ComponentsBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref, RefOr, ResponseBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_axum::router::UtoipaMethodRouter;

use super::Shared;
use super::access::Right;
use super::problem::{Document, PROBLEM_JSON};

/// The name of the scheme by which callers prove themselves.
const TOKEN: &str = "token";

/// Describe these calls in OpenAPI 3.1
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    responses((status = 200, description = "This document.", body = Object, content_type = "application/json"))
)]
pub(super) async fn document(State(shared): State<Shared>) -> impl IntoResponse + use<> {
    let document = shared.document.get().cloned().unwrap_or_else(Bytes::new);
    ([(CONTENT_TYPE, "application/json")], document)
}

/// The document without its calls.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("switchboard admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Looks at a running broker, and acts on it. docs/operate.md explains it."));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("A token of [[admin.tokens]], or the one in admin.token in the data folder"));
    let components = ComponentsBuilder::new()
        .schema(Document::name(), Document::schema())
        .security_scheme(TOKEN, SecurityScheme::Http(bearer.build()))
        .build();
    OpenApiBuilder::new().info(info.build()).paths(PathsBuilder::new().build()).components(Some(components)).build()
}

/// Adds to the description of a call who may make it, and that an error is a problem document.
pub(super) fn describe(right: Right, call: UtoipaMethodRouter<Shared>) -> UtoipaMethodRouter<Shared> {
    let (schemas, mut paths, router) = call;
    for operation in paths.paths.values_mut().flat_map(operations) {
        let token = || SecurityRequirement::new(TOKEN, [] as [&str; 0]);
        let (may, security) = match right {
            Right::Anyone => ("anyone", Vec::new()),
            Right::Read => ("read", vec![token()]),
            // The empty one: on loopback, a program of the broker's user needs none.
            Right::ReadOrSameUser => ("read", vec![token(), SecurityRequirement::default()]),
            Right::Act => ("act", vec![token()]),
            Right::Code => ("code", Vec::new()),
        };
        operation.security = Some(security);
        operation.extensions.get_or_insert_default().merge(ExtensionsBuilder::new().add("x-may", may).build());
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Document::name()))).build();
        let problem = ResponseBuilder::new().description("An error.").content(PROBLEM_JSON, content).build();
        operation.responses.responses.entry("default".to_owned()).or_insert(RefOr::T(problem));
    }
    (schemas, paths, router)
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.delete].into_iter().flatten()
}
