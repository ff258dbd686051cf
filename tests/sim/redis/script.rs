//! Functions and scripts: the servers' Lua with what it may call.
//!
//! One Lua state serves a whole deployment. A library belongs to the servers that were told of it, which share what was
//! made of its code. While a script runs, the keys of its server are lent to it.
//!
//! Not there: the libraries that servers add to Lua (`cjson`, `bit`, …), `redis.setresp`, and tables as errors that
//! `pcall` catches.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value};

use super::Flavour;
use super::cluster::{Detour, Local};
use super::command::{self, GROWS, WRITES};
use super::keyspace::{Answer, Fault, Keyspace, UNMODELLED};
use super::number;
use super::resp::Reply;

/// A library of functions that was loaded.
pub struct Library {
    pub name: Bytes,
    pub code: Bytes,
    /// In the order of their names.
    pub functions: Vec<Registered>,
}

#[derive(Clone)]
pub struct Registered {
    pub name: Bytes,
    pub may_write: bool,
    callback: Function,
}

/// The Lua of a deployment, made when it is first needed.
pub struct Scripts {
    flavour: Flavour,
    lua: Option<Engine>,
    /// By code: what is loaded again, or on another server, is the same.
    libraries: BTreeMap<Bytes, Rc<Library>>,
    scripts: BTreeMap<Bytes, Function>,
}

struct Engine {
    lua: Lua,
    run: Rc<RefCell<Option<Run>>>,
    registering: Rc<RefCell<Option<Vec<Registered>>>>,
}

/// What a script works with while it runs.
pub struct Run {
    pub keys: Keyspace,
    pub may_write: bool,
    /// What refuses every write, where nothing could refuse the whole script before.
    pub refuses_writes: Option<Fault>,
    /// What refuses writes that may need memory, likewise.
    pub refuses_growth: Option<Fault>,
    /// In a cluster, which keys may be touched.
    pub local: Option<Local>,
    words: Vec<Bytes>,
}

impl Run {
    pub fn new(keys: Keyspace, may_write: bool, local: Option<Local>) -> Self {
        Self { keys, may_write, refuses_writes: None, refuses_growth: None, local, words: Vec::new() }
    }

    fn call(&mut self, words: &[Bytes]) -> Answer {
        let is_redis = self.keys.flavour == Flavour::Redis70;
        let text = |redis, other| Err(Fault::of(if is_redis { redis } else { other }));
        let Some(command) = command::find(&words[0]) else {
            return text("ERR Unknown Redis command called from script", "ERR Unknown command called from script");
        };
        if !command.takes(words.len()) {
            return text(
                "ERR Wrong number of args calling Redis command from script",
                "ERR Wrong number of args calling command from script",
            );
        }
        let Some(run) = command.run else {
            return text(
                "ERR This Redis command is not allowed from script",
                "ERR This Valkey command is not allowed from script",
            );
        };
        if command.has(WRITES) {
            if !self.may_write {
                return Err(Fault::of("ERR Write commands are not allowed from read-only scripts."));
            }
            if let Some(fault) = &self.refuses_writes {
                return Err(fault.clone());
            }
            if command.has(GROWS)
                && let Some(fault) = &self.refuses_growth
            {
                return Err(fault.clone());
            }
        }
        if let Some(local) = &mut self.local {
            let keys = &self.keys;
            local
                .check(command.keys_of(words), |key| keys.has(key))
                .map_err(|detour| undeclared(detour, keys.flavour))?;
        }
        run(&mut self.keys, words)
    }
}

/// Why a script must not touch a key.
fn undeclared(detour: Detour, flavour: Flavour) -> Fault {
    let who = if flavour == Flavour::Redis70 { "Script attempted" } else { "Attempted" };
    match detour {
        Detour::Down => Fault::unmodelled("a script in a cluster that is down"),
        Detour::Strayed => Fault::of("ERR Script attempted to access keys that do not hash to the same slot"),
        Detour::Apart | Detour::Elsewhere(..) | Detour::Importing(..) | Detour::Halfway => {
            Fault::of(format!("ERR {who} to access a non local key in a cluster node"))
        }
    }
}

/// An error of a command that ends a script, and the line that called it.
#[derive(Debug)]
struct Raised {
    fault: Fault,
    line: Option<usize>,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault.0)
    }
}

impl std::error::Error for Raised {}

impl Scripts {
    pub fn new(flavour: Flavour) -> Self {
        Self { flavour, lua: None, libraries: BTreeMap::new(), scripts: BTreeMap::new() }
    }

    pub fn library(&mut self, code: &Bytes) -> Result<Rc<Library>, Fault> {
        if let Some(library) = self.libraries.get(code) {
            return Ok(library.clone());
        }
        let name = library_name(code)?;
        let engine = self.lua.get_or_insert_with(|| Engine::new(self.flavour));
        let mut functions = engine.register(code)?;
        if functions.is_empty() {
            return Err(Fault::of("ERR No functions registered"));
        }
        functions.sort_by(|one, other| one.name.cmp(&other.name));
        let library = Rc::new(Library { name, code: code.clone(), functions });
        self.libraries.insert(code.clone(), library.clone());
        Ok(library)
    }

    /// Calls a function. The run comes back with the keys, whatever happened.
    pub fn call(&mut self, function: &Registered, run: Run, keys: &[Bytes], arguments: &[Bytes]) -> (Run, Answer) {
        let engine = self.lua.as_ref().expect("a function was registered");
        let name = String::from_utf8_lossy(&function.name).into_owned();
        engine.with(
            run,
            || {
                let (keys, arguments) = (engine.list(keys)?, engine.list(arguments)?);
                function.callback.call::<Value>((keys, arguments))
            },
            |error| self.ended(&error, "user_function", &name),
        )
    }

    pub fn eval(&mut self, script: &Bytes, run: Run, keys: &[Bytes], arguments: &[Bytes]) -> (Run, Answer) {
        let engine = self.lua.get_or_insert_with(|| Engine::new(self.flavour));
        let compiled = match self.scripts.get(script) {
            Some(compiled) => compiled.clone(),
            None => match engine.lua.load(&script[..]).set_name("@user_script").into_function() {
                Ok(compiled) => {
                    self.scripts.insert(script.clone(), compiled.clone());
                    compiled
                }
                Err(error) => {
                    let text = first_lines(&error.to_string());
                    return (run, Err(Fault::of(format!("ERR Error compiling script (new function): {text}"))));
                }
            },
        };
        let engine = self.lua.as_ref().expect("made above");
        engine.with(
            run,
            || {
                let globals = engine.lua.globals();
                globals.raw_set("KEYS", engine.list(keys)?)?;
                globals.raw_set("ARGV", engine.list(arguments)?)?;
                compiled.call::<Value>(())
            },
            |error| self.ended(&error, "user_script", NO_NAME),
        )
    }

    /// How the server says that a script ended in an error.
    fn ended(&self, error: &mlua::Error, source: &str, name: &str) -> Fault {
        let (text, line) = match raised(error) {
            Some(Raised { fault, line }) => (fault.0.to_string(), *line),
            None => {
                let text = first_lines(&error.to_string());
                let line =
                    text.strip_prefix(&format!("{source}:")).and_then(|rest| rest.split(':').next()?.parse().ok());
                (format!("ERR {text}"), line)
            }
        };
        let Some(line) = line else { return Fault::of(text) };
        let name = match self.flavour {
            Flavour::Redis70 => format!("{name}, "),
            Flavour::Valkey9 => String::new(),
        };
        Fault::of(format!("{text} script: {name}on @{source}:{line}."))
    }
}

/// In place of the digest of a script, which nobody asks for.
const NO_NAME: &str = "script";

/// The error of a command below however many layers.
fn raised(error: &mlua::Error) -> Option<&Raised> {
    match error {
        mlua::Error::CallbackError { cause, .. } => raised(cause),
        mlua::Error::ExternalError(external) => external.downcast_ref(),
        _ => None,
    }
}

/// Without the trace behind it.
fn first_lines(text: &str) -> String {
    let text = text.split("\nstack traceback:").next().unwrap_or_default();
    for kind in ["runtime error: ", "syntax error: "] {
        if let Some(rest) = text.strip_prefix(kind) {
            return rest.into();
        }
    }
    text.into()
}

/// The name in the first line of a library.
fn library_name(code: &[u8]) -> Result<Bytes, Fault> {
    let Some(rest) = code.strip_prefix(b"#!") else { return Err(Fault::of("ERR Missing library metadata")) };
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Fault::of("ERR Invalid library metadata"))?;
    let mut words = line.split_ascii_whitespace();
    match words.next() {
        Some(engine) if engine.eq_ignore_ascii_case("lua") => {}
        other => return Err(Fault::of(format!("ERR Engine '{}' not found", other.unwrap_or_default()))),
    }
    let name = words.find_map(|word| word.strip_prefix("name="));
    name.map(|name| Bytes::copy_from_slice(name.as_bytes())).ok_or_else(|| Fault::of("ERR Library name was not given"))
}

impl Engine {
    fn new(flavour: Flavour) -> Self {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::default()).expect("these libraries are safe");
        let (run, registering) = (Rc::default(), Rc::default());
        let engine = Self { lua, run, registering };
        engine.equip(flavour).expect("a table of functions can be made");
        engine
    }

    /// What scripts find in `redis`, and what guards the names that are not there.
    fn equip(&self, flavour: Flavour) -> mlua::Result<()> {
        let lua = &self.lua;
        let redis = lua.create_table()?;
        let run = self.run.clone();
        let call = lua.create_function(move |lua, words: MultiValue| {
            perform(&run, flavour, &words)
                .map_err(|fault| {
                    let line = lua.inspect_stack(1, |caller| caller.current_line()).flatten();
                    mlua::Error::external(Raised { fault, line })
                })
                .and_then(|reply| into_lua(lua, reply))
        })?;
        redis.set("call", call)?;
        let run = self.run.clone();
        let pcall = lua.create_function(move |lua, words: MultiValue| match perform(&run, flavour, &words) {
            Ok(reply) => into_lua(lua, reply),
            Err(fault) => into_lua(lua, Reply::Error(fault.0)),
        })?;
        redis.set("pcall", pcall)?;
        let registering = self.registering.clone();
        let register = lua.create_function(move |_, words: MultiValue| {
            let mut registering = registering.borrow_mut();
            let functions = registering.as_mut();
            let functions =
                functions.ok_or_else(|| mlua::Error::runtime("functions are registered when a library is loaded"))?;
            functions.push(registered(&words)?);
            Ok(())
        })?;
        redis.set("register_function", register)?;
        let single = |field: &'static str| {
            lua.create_function(move |lua, text: mlua::LuaString| {
                let table = lua.create_table()?;
                table.raw_set(field, text)?;
                Ok(table)
            })
        };
        redis.set("status_reply", single("ok")?)?;
        redis.set("error_reply", single("err")?)?;
        lua.globals().set("redis", redis)?;
        lua.load(GUARD).exec()
    }

    fn register(&self, code: &[u8]) -> Result<Vec<Registered>, Fault> {
        // The first line is none of Lua's, and counts as one.
        let at = code.iter().position(|byte| *byte == b'\n').unwrap_or(code.len());
        let compiled = self.lua.load(&code[at..]).set_name("@user_function").into_function();
        let compiled = compiled
            .map_err(|error| Fault::of(format!("ERR Error compiling function: {}", first_lines(&error.to_string()))))?;
        *self.registering.borrow_mut() = Some(Vec::new());
        let ended = compiled.call::<()>(());
        let functions = self.registering.borrow_mut().take().unwrap_or_default();
        match ended {
            Ok(()) => Ok(functions),
            Err(error) => {
                Err(Fault::of(format!("ERR Error registering functions: {}", first_lines(&error.to_string()))))
            }
        }
    }

    fn with(
        &self,
        run: Run,
        body: impl FnOnce() -> mlua::Result<Value>,
        ended: impl FnOnce(mlua::Error) -> Fault,
    ) -> (Run, Answer) {
        *self.run.borrow_mut() = Some(run);
        let answer = match body() {
            Ok(value) => from_lua(value),
            Err(error) => Err(ended(error)),
        };
        let run = self.run.borrow_mut().take().expect("lent above");
        (run, answer)
    }

    fn list(&self, words: &[Bytes]) -> mlua::Result<Table> {
        let list = self.lua.create_table_with_capacity(words.len(), 0)?;
        for (word, at) in words.iter().zip(1..) {
            list.raw_seti(at, self.lua.create_string(word)?)?;
        }
        Ok(list)
    }
}

/// Names that are not there are errors, not nothing.
const GUARD: &str = r#"
local known = _G
known.print, known.dofile, known.loadfile, known.load, known.require, known.module = nil, nil, nil, nil, nil, nil
setmetatable(known, {
  __index = function(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
  __newindex = function()
    error('Attempt to modify a readonly table', 2)
  end,
})
"#;

/// Both forms: a name and a function, or a table of these and flags.
fn registered(words: &MultiValue) -> mlua::Result<Registered> {
    let words: Vec<&Value> = words.iter().collect();
    let of = |name: &mlua::LuaString, callback: &Function, may_write| Registered {
        name: Bytes::copy_from_slice(&name.as_bytes()),
        may_write,
        callback: callback.clone(),
    };
    match words.as_slice() {
        [Value::String(name), Value::Function(callback)] => Ok(of(name, callback, true)),
        [Value::Table(table)] => {
            let flags: Option<Vec<String>> = table.raw_get("flags")?;
            let may_write = !flags.unwrap_or_default().iter().any(|flag| flag == "no-writes");
            Ok(of(&table.raw_get("function_name")?, &table.raw_get("callback")?, may_write))
        }
        _ => Err(mlua::Error::runtime("wrong arguments to redis.register_function")),
    }
}

/// Runs the command that a script calls.
fn perform(run: &RefCell<Option<Run>>, flavour: Flavour, words: &MultiValue) -> Answer {
    let mut run = run.borrow_mut();
    let Some(run) = run.as_mut() else { return Err(Fault::of("ERR commands are called by functions that run")) };
    let is_redis = flavour == Flavour::Redis70;
    let mut given = std::mem::take(&mut run.words);
    given.clear();
    for word in words {
        given.push(match word {
            Value::String(text) => Bytes::copy_from_slice(&text.as_bytes()),
            Value::Integer(number) => number::written(flavour, *number as f64),
            Value::Number(number) => number::written(flavour, *number),
            _ => {
                return Err(Fault::of(if is_redis {
                    "ERR Lua redis lib command arguments must be strings or integers"
                } else {
                    "ERR Command arguments must be strings or integers"
                }));
            }
        });
    }
    if given.is_empty() {
        return Err(Fault::of(if is_redis {
            "ERR Please specify at least one argument for this redis lib call"
        } else {
            "ERR Please specify at least one argument for this call"
        }));
    }
    let answer = run.call(&given);
    run.words = given;
    answer
}

fn into_lua(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    let single = |field: &str, text: &str| {
        let table = lua.create_table()?;
        table.raw_set(field, text)?;
        Ok(Value::Table(table))
    };
    match reply {
        Reply::Int(number) => Ok(Value::Number(number as f64)),
        Reply::Bulk(bytes) => Ok(Value::String(lua.create_string(&bytes)?)),
        Reply::Nil | Reply::NilArray => Ok(Value::Boolean(false)),
        Reply::Status(text) => single("ok", &text),
        Reply::Error(text) => single("err", &text),
        Reply::Array(replies) => {
            let list = lua.create_table_with_capacity(replies.len(), 0)?;
            for (reply, at) in replies.into_iter().zip(1..) {
                list.raw_seti(at, into_lua(lua, reply)?)?;
            }
            Ok(Value::Table(list))
        }
    }
}

/// What a script returned, as its caller is answered. A list ends at the first nil.
fn from_lua(value: Value) -> Answer {
    Ok(match value {
        Value::String(text) => Reply::Bulk(Bytes::copy_from_slice(&text.as_bytes())),
        Value::Integer(number) => Reply::Int(number),
        Value::Number(number) => Reply::Int(truncated(number)),
        Value::Boolean(true) => Reply::Int(1),
        Value::Table(table) => {
            let field =
                |name| table.raw_get::<Option<mlua::LuaString>>(name).ok().flatten().map(|text| text.to_string_lossy());
            let mut values = table.raw_get::<Value>(1).unwrap_or(Value::Nil);
            if values.is_nil() {
                if let Some(text) = field("err") {
                    return Err(Fault::of(with_code(&text)));
                }
                if let Some(text) = field("ok") {
                    return Ok(Reply::Status(text.into()));
                }
            }
            let mut replies = Vec::with_capacity(table.raw_len());
            while !values.is_nil() {
                replies.push(from_lua(values).unwrap_or_else(|fault| Reply::Error(fault.0)));
                values = table.raw_get(replies.len() + 1).unwrap_or(Value::Nil);
            }
            Reply::Array(replies)
        }
        Value::Nil | Value::Boolean(false) => Reply::Nil,
        _ => return Err(Fault::unmodelled("what a script returned")),
    })
}

/// Whole, as the servers' machines do it: what does not fit is the smallest of all.
fn truncated(number: f64) -> i64 {
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    if fits { number as i64 } else { i64::MIN }
}

/// An error of one word is a sentence without a code.
fn with_code(text: &str) -> String {
    let text = text.strip_prefix('-').unwrap_or(text);
    if text.contains(' ') { text.into() } else { format!("ERR {text}") }
}

/// Whether an error comes from the model and not from what it stands for.
pub fn is_unmodelled(reply: &Reply) -> bool {
    match reply {
        Reply::Error(text) => text.starts_with(UNMODELLED),
        Reply::Array(replies) => replies.iter().any(is_unmodelled),
        _ => false,
    }
}
