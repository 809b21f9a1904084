//! Messages to systemd, or to another service manager that speaks `sd_notify`: the effe is ready, reloads,
//! stops. Without `NOTIFY_SOCKET` none is sent. A message that can't be sent is dropped: the manager has a
//! timeout of its own.

use std::path::Path;

use sd_notify::NotifyState;

/// A first Start has succeeded, or the last change is over. Generation `number` of `plugin` serves; `failed`
/// says why the change has failed, if it has.
pub fn ready(plugin: &Path, number: u64, failed: Option<&str>) {
    let mut status = format!("serving {}, generation {number}", plugin.display());
    if let Some(why) = failed {
        status.push_str("; the last change failed: ");
        status.push_str(why);
    }
    tell(&[NotifyState::Ready, NotifyState::Status(&on_one_line(&status))]);
}

/// The effe serves, and no Start has succeeded yet.
pub fn starting() {
    tell(&[NotifyState::Status("no Start has succeeded yet; trying again each second")]);
}

/// A reload or a rollback has begun; [`ready`] follows.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now, NotifyState::Status("taking up what has changed")]);
    }
}

/// The effe stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing what runs")]);
}

fn tell(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}

/// A line feed would begin another message.
fn on_one_line(text: &str) -> String {
    text.replace(|ch: char| ch.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_status_holds_a_second_message() {
        bolero::check!().with_type::<String>().for_each(|text| {
            let line = on_one_line(text);
            assert!(!line.contains(char::is_control) && line.chars().count() == text.chars().count());
        });
    }
}
