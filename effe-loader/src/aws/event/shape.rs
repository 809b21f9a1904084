//! The shapes of events.

/// The form of an event, and so of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// API Gateway's payload 1.0, of REST APIs and of HTTP APIs that ask for it.
    Gateway1,
    /// API Gateway's payload 2.0, and Function URLs.
    Gateway2,
    /// A load balancer; whether it sends every value of a header, and expects them.
    LoadBalancer { is_multi: bool },
    /// VPC Lattice, version 2.0 of its events.
    Lattice,
    /// No HTTP: the body of the answer is the result.
    Other,
}
