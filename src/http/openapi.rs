//! The published documents of the charging services, complete by themselves: no handler has to exist.
//!
//! Each operation is a function, so that a route can be registered together with its description. The schemas come from
//! the type descriptions in `nchf/wire`, the examples from JSON files beside this one. The files in the folder
//! `openapi` are written by `nchf openapi NAME`; a test keeps them equal to what is built here, and compares it with
//! the interface as 3GPP publishes it.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::external_docs::ExternalDocsBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::info::{InfoBuilder, LicenseBuilder};
use utoipa::openapi::path::{Callback, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, PathItem, Paths, PathsBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{AnyOfBuilder, Schema, Type};
use utoipa::openapi::security::{ClientCredentials, Flow, OAuth2, Scopes, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::{ServerBuilder, ServerVariableBuilder};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, Content, ContentBuilder, Object, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Response,
    ResponseBuilder,
};

use super::nchf::wire::schemas::{Service, converged, offline_only, schemas};

/// A body to try out or to compare with, kept in a file of its name.
struct Example {
    name: &'static str,
    summary: &'static str,
    json: &'static str,
}

macro_rules! example {
    ($name:literal, $summary:literal) => {
        Example { name: $name, summary: $summary, json: include_str!(concat!("openapi/examples/", $name, ".json")) }
    };
}

/// Makes a document.
pub type Document = fn() -> OpenApi;

/// Every document, by the name that its file has and that `nchf openapi` takes.
pub const DOCUMENTS: [(&str, Document); 3] = [
    ("nchf-convergedcharging", converged_charging),
    ("nchf-offlineonlycharging", offline_only_charging),
    ("admin", super::admin::document),
];

/// The document with this name.
pub fn named(name: &str) -> Option<OpenApi> {
    DOCUMENTS.into_iter().find(|(known, _)| *known == name).map(|(_, document)| document())
}

pub fn yaml(document: &OpenApi) -> String {
    let text = document.to_yaml().expect("a document holds nothing that YAML cannot express");
    text.lines().map(|line| quote_for_old_readers(line) + "\n").collect()
}

/// Many tools still read YAML 1.1, where YES and NO are booleans and a bare date is no string.
fn quote_for_old_readers(line: &str) -> String {
    let entry = line.trim_start().trim_start_matches("- ");
    let scalar = entry.split_once(": ").map_or(entry, |(_, value)| value);
    let is_boolean = ["y", "n", "yes", "no", "on", "off"].contains(&scalar.to_ascii_lowercase().as_str());
    let is_date = matches!(scalar.as_bytes(), [b'0'..=b'9', _, _, _, b'-', _, _, b'-', ..]);
    match line.strip_suffix(scalar) {
        Some(before) if is_boolean || is_date => format!("{before}'{scalar}'"),
        _ => line.to_owned(),
    }
}

/// Nchf_ConvergedCharging, version 3.
pub fn converged_charging() -> OpenApi {
    let info = InfoBuilder::new().title("Nchf_ConvergedCharging").version("3.3.0").description(Some(
        "Charging with quotas and without (TS 32.291, Release 19). A network function opens a charging session, \
         reports usage and asks for quotas with updates, and ends it with a release; a single event is charged with \
         one request. Members that are not named here are accepted and kept.\n\n\
         To try it out with the demo data: open a session with the first example of `create_charging_data`; the last \
         part of its `Location` is the `ChargingDataRef` that the update and the release ask for. The same request \
         again is a copy and gets the same answer; for another session, change `invocationTimeStamp`.",
    ));
    let paths = PathsBuilder::new()
        .path("/chargingdata", post(create_charging_data()))
        .path("/chargingdata/{ChargingDataRef}/update", post(update_charging_data()))
        .path("/chargingdata/{ChargingDataRef}/release", post(release_charging_data()))
        .build();
    let tag = TagBuilder::new().name(CHARGING_DATA).description(Some("Charging sessions and single events."));
    document(Service::ConvergedCharging, "nchf-convergedcharging", "v3", info, tag, paths)
}

/// Nchf_OfflineOnlyCharging, version 1.
pub fn offline_only_charging() -> OpenApi {
    let info = InfoBuilder::new().title("Nchf_OfflineOnlyCharging").version("1.2.0").description(Some(
        "Charging without quotas (TS 32.291, Release 19): usage is reported and recorded, nothing is reserved and \
         nobody is notified. Members that are not named here are accepted and kept.",
    ));
    let paths = PathsBuilder::new()
        .path("/offlinechargingdata", post(create_offline_charging_data()))
        .path("/offlinechargingdata/{OfflineChargingDataRef}/update", post(update_offline_charging_data()))
        .path("/offlinechargingdata/{OfflineChargingDataRef}/release", post(release_offline_charging_data()))
        .build();
    let tag = TagBuilder::new().name(OFFLINE_CHARGING_DATA).description(Some("Charging sessions without quotas."));
    document(Service::OfflineOnlyCharging, "nchf-offlineonlycharging", "v1", info, tag, paths)
}

const CHARGING_DATA: &str = "Charging data";
const OFFLINE_CHARGING_DATA: &str = "Offline charging data";

pub fn create_charging_data() -> Operation {
    let operation = OperationBuilder::new()
        .tag(CHARGING_DATA)
        .operation_id(Some("create_charging_data"))
        .summary(Some("Open a charging session, or charge one event"))
        .description(Some(
            "Reserves a quota for each rating group that asks for one. Each rating group has its own `resultCode`; \
             that one gets nothing does not affect the others. With `oneTimeEvent` the event is charged at once and \
             no session is opened.",
        ))
        .request_body(Some(request::<converged::ChargingDataRequest>(&[
            example!("create_data_session", "A data session asks for 10 MiB"),
            example!("create_sms_after_delivery", "A short message that was delivered"),
            example!("create_sms_before_delivery", "A short message that is about to be delivered"),
            example!("create_voice_call", "A call asks for 300 seconds"),
        ])))
        .response(
            "201",
            answer::<converged::ChargingDataResponse>(
                "Opened, or charged.",
                &[
                    example!("created_data_session", "10 MiB are granted"),
                    example!("created_out_of_credit", "The session is open, but nothing can be granted"),
                    example!("created_sms", "The short message is paid for"),
                ],
            )
            .header("Location", location("Address of the session, or of the event.")),
        )
        .callback("chargingNotification", notification());
    let operation = may_answer::<converged::ChargingDataResponse>(operation, &["400", "403", "404"]);
    refuses(operation, &["307", "308", "401", "405", "408", "410", "411", "413", "415", "429"])
}

pub fn update_charging_data() -> Operation {
    let operation = OperationBuilder::new()
        .tag(CHARGING_DATA)
        .operation_id(Some("update_charging_data"))
        .summary(Some("Report usage and ask for the next quota"))
        .description(Some(
            "Charges what was used, gives back what remains of the quotas of these rating groups, and reserves anew \
             where asked for.",
        ))
        .parameter(session("ChargingDataRef"))
        .request_body(Some(request::<converged::ChargingDataRequest>(&[
            example!("update_data_session", "8 MiB were used, 10 MiB are asked for"),
            example!("update_forced_reauthorisation", "Answer to a notification: usage so far, any amount is welcome"),
            example!("update_voice_call", "270 seconds were used, 300 are asked for"),
        ])))
        .response(
            "200",
            answer::<converged::ChargingDataResponse>(
                "Charged.",
                &[
                    example!("updated_data_session", "10 MiB are granted"),
                    example!("updated_last_quota", "The last quota that can be paid for"),
                    example!("updated_redirect", "Nothing can be granted: the user is sent to a page to top up"),
                ],
            ),
        );
    let operation = may_answer::<converged::ChargingDataResponse>(operation, &["400", "403", "404"]);
    refuses(operation, &["307", "308", "401", "405", "408", "410", "411", "413", "415", "429"])
}

pub fn release_charging_data() -> Operation {
    let operation = OperationBuilder::new()
        .tag(CHARGING_DATA)
        .operation_id(Some("release_charging_data"))
        .summary(Some("End a charging session"))
        .description(Some("Charges what was used, gives back all quotas and closes the record of the session."))
        .parameter(session("ChargingDataRef"))
        .request_body(Some(request::<converged::ChargingDataRequest>(&[
            example!("release_data_session", "The data session ended"),
            example!("release_lost_connection", "The connection was lost"),
            example!("release_voice_call", "The call ended"),
        ])))
        .response("204", ResponseBuilder::new().description("Ended."));
    let operation = may_answer::<converged::ChargingDataResponse>(operation, &["404"]);
    refuses(operation, &["307", "308", "400", "401", "403", "410", "411", "413", "415", "429"])
}

/// What the charging function sends to the address that a create or an update named in `notifyUri`.
fn notification() -> Callback {
    let operation = OperationBuilder::new()
        .tag(CHARGING_DATA)
        .operation_id(Some("notify_consumer"))
        .summary(Some("Ask the consumer to report, or to end the session"))
        .request_body(Some(request::<converged::ChargingNotifyRequest>(&[
            example!("notify_abort", "The session has to end"),
            example!("notify_reauthorization", "Rating group 10 shall report and ask again"),
        ])))
        .response("200", answer::<converged::ChargingNotifyResponse>("Understood; the answer says more.", &[]))
        .response("204", ResponseBuilder::new().description("Understood."));
    let operation = may_answer::<converged::ChargingNotifyResponse>(operation, &["400"]);
    let operation = refuses(operation, &["307", "308", "401", "403", "404", "411", "413", "415", "429"]);
    Callback::from([("{$request.body#/notifyUri}".to_owned(), RefOr::T(post(operation)))])
}

pub fn create_offline_charging_data() -> Operation {
    let operation = OperationBuilder::new()
        .tag(OFFLINE_CHARGING_DATA)
        .operation_id(Some("create_offline_charging_data"))
        .summary(Some("Open a charging session"))
        .description(Some("Opens the record of the session, with the usage that is reported already."))
        .request_body(Some(request::<offline_only::ChargingDataRequest>(&[
            example!("offline_create_data_session", "A data session starts"),
            example!("offline_create_two_rating_groups", "First usage of two rating groups"),
            example!("offline_create_with_usage", "First usage, by direction"),
        ])))
        .response(
            "201",
            answer::<offline_only::ChargingDataResponse>(
                "Opened.",
                &[
                    example!("offline_created", "The session is open"),
                    example!("offline_created_with_triggers", "The session is open; when to report"),
                ],
            )
            .header("Location", location("Address of the session.")),
        );
    refuses(operation, &["400", "401", "403", "404", "405", "408", "410", "411", "413", "415", "429"])
}

pub fn update_offline_charging_data() -> Operation {
    let operation = OperationBuilder::new()
        .tag(OFFLINE_CHARGING_DATA)
        .operation_id(Some("update_offline_charging_data"))
        .summary(Some("Report usage"))
        .description(Some("Adds the usage to the record of the session."))
        .parameter(session("OfflineChargingDataRef"))
        .request_body(Some(request::<offline_only::ChargingDataRequest>(&[
            example!("offline_update_location_change", "The user moved"),
            example!("offline_update_two_rating_groups", "Usage of two rating groups"),
            example!("offline_update_volume_limit", "The volume that has to be reported was reached"),
        ])))
        .response(
            "200",
            answer::<offline_only::ChargingDataResponse>(
                "Recorded.",
                &[example!("offline_updated", "The usage is recorded")],
            ),
        );
    refuses(operation, &["400", "401", "403", "404", "405", "408", "410", "411", "413", "415", "429"])
}

pub fn release_offline_charging_data() -> Operation {
    let operation = OperationBuilder::new()
        .tag(OFFLINE_CHARGING_DATA)
        .operation_id(Some("release_offline_charging_data"))
        .summary(Some("End a charging session"))
        .description(Some("Adds the last usage to the record of the session and closes it."))
        .parameter(session("OfflineChargingDataRef"))
        .request_body(Some(request::<offline_only::ChargingDataRequest>(&[
            example!("offline_release_data_session", "The data session ended"),
            example!("offline_release_lost_connection", "The connection was lost"),
            example!("offline_release_without_usage", "The data session ended; nothing was used since the last report"),
        ])))
        .response("204", ResponseBuilder::new().description("Ended."));
    refuses(operation, &["400", "401", "404", "410", "411", "413", "415", "429"])
}

fn document(service: Service, name: &str, version: &str, info: InfoBuilder, tag: TagBuilder, paths: Paths) -> OpenApi {
    let access = Scopes::one(name, "Use of this service");
    let credentials =
        OAuth2::new([Flow::ClientCredentials(ClientCredentials::new("{nrfApiRoot}/oauth2/token", access))]);
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas(service))
        .responses_from_iter(refusals(service))
        .security_scheme("oAuth2ClientCredentials", SecurityScheme::OAuth2(credentials))
        .build();
    let api_root = ServerVariableBuilder::new()
        .default_value("http://127.0.0.1:8000")
        .description(Some("Where the service listens, with the path in front of it if there is one."));
    OpenApiBuilder::new()
        .info(info.license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build())))
        .external_docs(Some(
            ExternalDocsBuilder::new()
                .description(Some("TS 32.291: the service, its operations and its data"))
                .url("https://www.3gpp.org/ftp/Specs/archive/32_series/32.291/")
                .build(),
        ))
        .servers(Some([ServerBuilder::new()
            .url(format!("{{apiRoot}}/{name}/{version}"))
            .parameter("apiRoot", api_root)
            .build()]))
        .tags(Some([tag.build()]))
        // The first one, without any scheme, says that a deployment may do without tokens.
        .security(Some([SecurityRequirement::default(), SecurityRequirement::new("oAuth2ClientCredentials", [name])]))
        .paths(paths)
        .components(Some(components))
        .build()
}

fn post(operation: Operation) -> PathItem {
    PathItem::new(HttpMethod::Post, operation)
}

fn session(name: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The session: the last part of the address that its opening answered in `Location`."))
        .schema(Some(Object::with_type(Type::String)))
        .build()
}

fn header(description: &str) -> Header {
    HeaderBuilder::new().schema(Some(Object::with_type(Type::String))).description(Some(description)).build()
}

fn location(description: &str) -> Header {
    // utoipa's header has no room for this member, its extensions are written as they are.
    let mut location = header(description);
    location.extensions = Some(Extensions::from_iter([("required", true)]));
    location
}

fn body(schema: impl Into<RefOr<Schema>>, examples: &[Example]) -> Content {
    let examples = examples.iter().map(|example| {
        let value: Value = serde_json::from_str(example.json).expect("an example is JSON, a test reads each");
        (example.name, ExampleBuilder::new().summary(example.summary).value(Some(value)).build())
    });
    ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build()
}

fn reference<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

fn request<T: ToSchema>(examples: &[Example]) -> RequestBody {
    RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", body(reference::<T>(), examples))
        .build()
}

fn answer<T: ToSchema>(description: &str, examples: &[Example]) -> ResponseBuilder {
    ResponseBuilder::new().description(description).content("application/json", body(reference::<T>(), examples))
}

/// Adds answers that are a problem for most consumers, and a charging answer for those that offered the feature ES4xx.
///
/// TS 32.291 says `oneOf` here. A problem document has no required member, so every answer is one as well, and exactly
/// one of the two never fits.
fn may_answer<T: ToSchema>(operation: OperationBuilder, codes: &[&str]) -> OperationBuilder {
    codes.iter().fold(operation, |operation, code| {
        let either = AnyOfBuilder::new().item(reference::<converged::ProblemDetails>()).item(reference::<T>());
        operation.response(*code, refusal(code, either.into()))
    })
}

/// Adds answers that are a problem; some can be the answer to any request.
fn refuses(operation: OperationBuilder, codes: &[&str]) -> Operation {
    let always = ["500", "502", "503", "504", "default"];
    let codes = codes.iter().chain(&always);
    codes.fold(operation, |operation, code| operation.response(*code, Ref::from_response_name(*code))).build()
}

/// The answers that `refuses` refers to.
fn refusals(service: Service) -> Vec<(&'static str, RefOr<Response>)> {
    let (redirects, problem) = match service {
        Service::ConvergedCharging => (&["307", "308"][..], reference::<converged::ProblemDetails>()),
        Service::OfflineOnlyCharging => (&[][..], reference::<offline_only::ProblemDetails>()),
    };
    let redirects = redirects.iter().map(|code| {
        let content = body(reference::<converged::RedirectResponse>(), &[]);
        let response = ResponseBuilder::new()
            .description("Another instance serves this request: repeat it at the address in `Location`.")
            .content("application/json", content)
            .header("Location", location("Where to repeat the request."))
            .header("3gpp-Sbi-Target-Nf-Id", header("The instance that the address leads to."));
        (*code, response.into())
    });
    let problems = PROBLEMS.iter().map(|(code, _, _)| (*code, refusal(code, problem.clone().into()).into()));
    redirects.chain(problems).collect()
}

/// Why a request is refused, by status code.
const PROBLEMS: [(&str, &str, &[Example]); 16] = [
    (
        "400",
        "The request cannot be understood, or holds too little to charge.",
        &[example!("problem_member_missing", "A required member is missing")],
    ),
    ("401", "The access token is missing or not valid.", &[]),
    (
        "403",
        "The service is not allowed to this subscriber, or the access token does not cover it.",
        &[example!("problem_request_denied", "The subscriber is blocked")],
    ),
    (
        "404",
        "No such subscriber, or no such session.",
        &[
            example!("problem_session_unknown", "No such session"),
            example!("problem_user_unknown", "No such subscriber"),
        ],
    ),
    ("405", "The resource does not know this method.", &[]),
    ("408", "The request did not arrive in time.", &[]),
    ("410", "The session has ended.", &[]),
    ("411", "The length of the body is missing or wrong.", &[]),
    ("413", "The body is too large.", &[]),
    ("415", "The body is of another type than JSON.", &[]),
    ("429", "Too many requests. The same request may succeed later.", &[]),
    ("500", "A fault of the charging function.", &[]),
    ("502", "A proxy got no valid answer.", &[]),
    ("503", "Overload, or the store cannot be reached. The same request may succeed later.", &[]),
    ("504", "No answer in time, or the request had expired on arrival.", &[]),
    ("default", "Any other failure.", &[]),
];

/// What is always in a problem; readers would otherwise be shown a made-up value for every member there may be.
fn plain_problem(code: &str) -> Value {
    // Any other failure is one that nobody has thought of.
    let status = code.parse().unwrap_or(StatusCode::NOT_IMPLEMENTED);
    json!({ "title": status.canonical_reason(), "status": status.as_u16() })
}

fn refusal(code: &str, schema: RefOr<Schema>) -> ResponseBuilder {
    let (_, description, examples) =
        PROBLEMS.iter().find(|(known, _, _)| *known == code).expect("every refusal stands in the table");
    let mut content = body(schema, examples);
    if examples.is_empty() {
        content.example = Some(plain_problem(code));
    }
    let response = ResponseBuilder::new().description(*description).content("application/problem+json", content);
    match code {
        "401" => response.header("WWW-Authenticate", header("The scheme, and what is wrong with the token.")),
        "405" => response.header("Allow", header("The methods that the resource knows.")),
        "429" | "503" => response.header("Retry-After", header("Seconds to wait.")),
        _ => response,
    }
}
