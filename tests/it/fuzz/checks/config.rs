//! A text as the configuration file.

use std::io::Write;

use nchf::config::{Config, Overrides};

/// An error is one line for an operator. What is accepted is printed in a way that reads back, with secrets masked.
pub fn config(text: &[u8]) {
    match load(text) {
        Ok(config) => {
            let printed = config.to_toml();
            let again = load(printed.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{printed}"));
            let has_secrets = config.admin.token.is_some() || config.store.url.contains('@');
            if !has_secrets {
                assert_eq!(config, again, "{printed}");
            }
            assert_eq!(printed, again.to_toml());
            config.rules().expect("what was checked gives rules");
        }
        Err(error) => assert!(!error.is_empty() && !error.contains(char::is_control), "no single line: {error:?}"),
    }
}

fn load(text: &[u8]) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    Config::load(Some(file.path()), Overrides::default()).map_err(|error| error.to_string())
}
