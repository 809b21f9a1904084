//! What a generation's processes are made of: the plugin's sealed copy and the parameters. Each process of a generation
//! gets the same bytes, also one that is started long after the files have changed.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    rc::Rc,
};

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
    pub plugin: Option<Verified>,
    pub parameters: Parameters,
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
        Ok(Rc::new(Source { number, plugin, parameters }))
    }

    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.plugin.as_ref().and_then(Verified::memory).map(AsFd::as_fd)
    }

    pub fn image(&self) -> u64 {
        self.plugin.as_ref().map_or(0, Verified::image)
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
