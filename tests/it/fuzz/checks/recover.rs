//! Bytes as what a writer of records finds in its directory: after a crash, or after somebody's hand was there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use nchf::cdr_file::directory::{Directory, Error, FileNumber, Settings};
use nchf::cdr_file::files::Files;
use nchf::cdr_file::ts32297::Closure;
use nchf::cdr_file::{Encoded, Format};
use nchf::charging::time::{Span, Timestamp};
use serde_json::Value;

const NOW: i64 = 1_768_474_800;

/// Files stand one after the other, each after a line `=== ` with its name. The directory is refused, and then it is as
/// it was; or it is brought to rest: what was announced is out, and nothing else; the next number follows from the
/// writer's own file alone; files of others are as they were. Then it publishes one more, which recovery finds again.
pub fn recover(data: &[u8]) {
    let before = files(data);
    let folder = Memory(Rc::new(RefCell::new(before.clone())));
    let mut directory = match Directory::on(folder.clone(), settings()) {
        Ok(directory) => directory,
        Err(Error::Damaged { .. }) => {
            assert!(before.contains_key(".writer"), "a damaged file that is not there");
            return assert_eq!(folder.files(), before, "refused, and changed");
        }
        Err(error) => panic!("a sound disk: {error}"),
    };
    let after = folder.files();
    let announced = Announced::by(&after[".writer"]);
    if let Some(writer) = before.get(".writer") {
        assert_eq!(announced, Announced::by(writer), "what was announced is never announced otherwise");
    } else {
        assert_eq!(announced, Announced::default());
    }
    is_numbered_by(&announced, &mut directory);
    is_at_rest(&before, &after, &announced);

    // Recovery has nothing left to do.
    drop(directory);
    let mut directory = Directory::on(folder.clone(), settings()).expect("what was recovered is recovered again");
    assert_eq!(folder.files(), after);
    let now = Timestamp::from_secs(NOW);
    directory.append(now, &Encoded::default()).unwrap();
    match directory.close(now, Closure::Manual) {
        Ok(published) => {
            let published = published.expect("a record was appended");
            assert_eq!(published.number.0, announced.number + 1);
            assert!(published.files.iter().all(|name| folder.files().contains_key(name) && !after.contains_key(name)));
        }
        Err(Error::Occupied(name)) => assert!(after.contains_key(&name), "{name} is nobody's"),
        Err(error) => panic!("a sound disk: {error}"),
    }
    let writer = folder.files()[".writer"].clone();
    let mut directory = Directory::on(folder, settings()).unwrap();
    is_numbered_by(&Announced::by(&writer), &mut directory);
}

fn is_numbered_by(announced: &Announced, directory: &mut Directory<Memory>) {
    let Announced { number, .. } = *announced;
    assert_eq!(directory.number().unwrap().0, number + 1);
    for (asked, expected) in [(0, false), (1, number >= 1), (number, number >= 1), (number + 1, false)] {
        assert_eq!(directory.is_published(FileNumber(asked)).unwrap(), expected, "{asked} of {number}");
    }
}

fn is_at_rest(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>, announced: &Announced) {
    let hidden = |format: Format| format!(".{}.{}.open", announced.number, format.extension());
    for (name, content) in before {
        let is_ours = name == ".writer" || name == ".writer.new" || is_hidden(name) || announced.files.contains(name);
        assert!(is_ours || after.get(name) == Some(content), "{name} is somebody else's");
    }
    for name in after.keys() {
        assert!(name == ".writer" || !is_hidden(name) && name != ".writer.new", "{name} is left over");
        let is_announced = announced.files.contains(name);
        assert!(before.contains_key(name) || is_announced || name == ".writer", "{name} was not announced");
    }
    for format in Format::ALL {
        let extension = format!(".{}", format.extension());
        let name = announced.files.iter().find(|name| name.ends_with(&extension));
        if let (Some(name), Some(content)) = (name, before.get(&hidden(format))) {
            assert_eq!(after.get(name), Some(content), "{name} was announced and written");
        }
    }
}

/// A name that a file under way may have.
fn is_hidden(name: &str) -> bool {
    let number = Format::ALL.iter().find_map(|format| {
        name.strip_prefix('.')?.strip_suffix(".open")?.strip_suffix(format.extension())?.strip_suffix('.')
    });
    number.and_then(|number| number.parse::<u32>().ok().filter(|parsed| parsed.to_string() == number)).is_some()
}

/// What the writer's file says, read independently.
#[derive(Debug, Default, PartialEq)]
struct Announced {
    number: u32,
    files: Vec<String>,
}

impl Announced {
    fn by(writer: &[u8]) -> Self {
        let writer: Value = serde_json::from_slice(writer).expect("what is not refused is JSON");
        // Of an object, or of the list of its members.
        let member = |name: &str, at: usize| writer.get(name).or_else(|| writer.get(at)).expect("has all members");
        let number = member("number", 1).as_u64().and_then(|number| number.try_into().ok());
        let files = member("files", 2).as_array().expect("files are a list");
        Self {
            number: number.expect("a number of 32 bits"),
            files: files.iter().map(|name| name.as_str().expect("a name is text").to_owned()).collect(),
        }
    }
}

fn settings() -> Settings {
    Settings {
        node_id: "nchf".into(),
        formats: Format::ALL.to_vec(),
        lives_for: Span::from_secs(300),
        bytes_max: 1 << 20,
        records_max: 1000,
    }
}

/// What no folder can have for a name is left out.
fn files(data: &[u8]) -> BTreeMap<String, Vec<u8>> {
    const MARK: &[u8] = b"=== ";
    let mut files = BTreeMap::new();
    let mut file: Option<(String, Vec<u8>)> = None;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(MARK) {
            files.extend(file.take());
            let name = String::from_utf8_lossy(name).trim_end_matches('\n').to_owned();
            let is_name = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
            file = is_name.then(|| (name, Vec::new()));
        } else if let Some((_, content)) = &mut file {
            content.extend_from_slice(line);
        }
    }
    files.extend(file);
    files
}

/// A folder that never fails.
#[derive(Clone)]
struct Memory(Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.borrow().clone()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.0.borrow_mut().get_mut(name).map(change).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Files for Memory {
    /// Its name.
    type File = String;

    fn create(&mut self, name: &str) -> io::Result<String> {
        self.0.borrow_mut().insert(name.to_owned(), Vec::new());
        Ok(name.to_owned())
    }

    fn write(&mut self, file: &mut String, bytes: &[u8]) -> io::Result<()> {
        self.change(file, |content| content.extend_from_slice(bytes))
    }

    fn overwrite(&mut self, file: &mut String, bytes: &[u8]) -> io::Result<()> {
        self.change(file, |content| content[..bytes.len()].copy_from_slice(bytes))
    }

    fn sync(&mut self, file: &mut String) -> io::Result<()> {
        self.change(file, |_| ())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        // As in a folder that has no others in it.
        if to.is_empty() || to.contains(['/', '\0']) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let content = self.0.borrow_mut().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.0.borrow_mut().insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.borrow_mut().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().get(name).cloned())
    }

    fn names(&mut self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().keys().cloned().collect())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }
}
