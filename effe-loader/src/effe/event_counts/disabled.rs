//! Without AWS there are no events.

#[derive(Debug, Default)]
pub struct EventCounts;

impl EventCounts {
    pub fn under_way(&self) -> usize {
        0
    }

    pub fn results(&self) -> Option<[(&'static str, u64); 4]> {
        None
    }
}
