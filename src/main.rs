//! The program.

fn main() {
    let name = std::env::args().nth(2).unwrap_or_default();
    print!("{}", nchf::http::openapi::yaml(&nchf::http::openapi::named(&name).expect("a name")));
}
