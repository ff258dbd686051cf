use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use nchf::http::openapi::{DOCUMENTS, yaml};

/// A 5G charging function.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Prints the document that describes a service.
    Openapi {
        #[arg(value_parser = PossibleValuesParser::new(DOCUMENTS.map(|(name, _)| name)))]
        name: String,
    },
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Openapi { name } => {
            let (_, document) = DOCUMENTS.into_iter().find(|(known, _)| *known == name).expect("clap knows the names");
            print!("{}", yaml(&document()));
            ExitCode::SUCCESS
        }
    }
}
