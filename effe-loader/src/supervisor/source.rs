//! What a generation's processes are made of: the plugin's sealed copy and the parameters. Each process of a generation
//! gets the same bytes, also one that is started long after the files have changed.

use std::{
    ffi::OsString,
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
    rc::Rc,
};

use serde_json::{Value, json};

use super::carried::{Incoming, Outgoing, bytes};

use crate::{
    boot::verified_again,
    effe::generation::GenerationConfig,
    error::{Error, Refusal},
    plugin::{PluginFile, Verified, parameters::Parameters, same_bytes},
};

pub struct Source {
    /// Of the generation, 1 for the first.
    pub number: u64,
    /// `None` in a program that holds its lambda.
    pub plugin: Option<Rc<Verified>>,
    pub parameters: Parameters,
    /// The program that its processes run, if it is not the supervisor's own.
    pub program: Option<Rc<File>>,
}

/// A plugin and parameters that may become a generation.
pub type Parts = (Verified, Parameters, Option<String>);

impl Source {
    /// Fails if the plugin is in no memory file: then other processes can't be given it.
    pub fn new(number: u64, plugin: Option<Verified>, parameters: Parameters) -> Result<Rc<Source>, Error> {
        if let Some(plugin) = plugin.as_ref().filter(|plugin| plugin.memory().is_none()) {
            let reason = "--processes hands it to other processes in a memory file, and here is none: give the loader \
                          /proc and a system with memfd_create, or leave --processes out";
            return Err(Refusal::new(plugin.path(), reason).into());
        }
        Ok(Rc::new(Source { number, plugin: plugin.map(Rc::new), parameters, program: None }))
    }

    /// The same, served by another program; or by the supervisor's own again.
    pub fn under(&self, number: u64, program: Option<File>) -> Rc<Source> {
        let (plugin, parameters) = (self.plugin.clone(), self.parameters.clone());
        Rc::new(Source { number, plugin, parameters, program: program.map(Rc::new) })
    }

    /// For [`Source::carried`] in the program that goes on, whose processes run that program.
    pub fn carry<'a>(&'a self, out: &mut Outgoing<'a>) -> Value {
        let plugin = self.plugin.as_deref().map(|plugin| {
            json!({
                "path": plugin.path().as_os_str().as_bytes(),
                "memory": plugin.memory().map(|memory| out.put(memory)),
                "image": plugin.image(),
                "info": plugin.info,
            })
        });
        json!({ "number": self.number, "plugin": plugin, "parameters": self.parameters.to_json() })
    }

    pub fn carried(value: &Value, incoming: &Incoming) -> Option<Rc<Source>> {
        let plugin = match &value["plugin"] {
            Value::Null => None,
            plugin => {
                let path = OsString::from_vec(bytes(&plugin["path"])?).into();
                let memory = incoming.copy(&plugin["memory"])?.into();
                let mut verified = Verified::handed(path, memory, plugin["image"].as_u64()?).ok()?;
                verified.info = plugin["info"].as_str()?.to_owned();
                Some(Rc::new(verified))
            }
        };
        let parameters = Parameters::from_json(&value["parameters"])?;
        Some(Rc::new(Source { number: value["number"].as_u64()?, plugin, parameters, program: None }))
    }

    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.plugin.as_deref().and_then(Verified::memory).map(AsFd::as_fd)
    }

    pub fn image(&self) -> u64 {
        self.plugin.as_deref().map_or(0, Verified::image)
    }
}

/// What is in the files now and differs from what serves; `None` if nothing does. It may take seconds, because the
/// plugin is tried in a child: not for the supervisor's own thread.
pub fn read_again(
    path: &Path,
    config: &GenerationConfig,
    serves: &(File, Parameters),
) -> Result<Option<Parts>, String> {
    let parameters = config.sources.read()?;
    let file = PluginFile::open(path, &config.policy).map_err(|err| err.to_string())?;
    let is_same = same_bytes(&serves.0, &file.file);
    if is_same && parameters == serves.1 {
        return Ok(None);
    }
    let warning = file.warning.clone();
    let plugin = verified_again(file, &config.policy).map_err(|err| err.to_string())?;
    Ok(Some((plugin, parameters, warning)))
}
