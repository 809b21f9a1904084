//! Puts short pieces of a body together, as far as they are here: to hand one on costs more than to copy it.

use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};

/// The next piece, an error, or `None` at the end of a body.
type Next<E> = Option<Result<Bytes, E>>;

/// Puts short pieces together, in their order, and lets long ones through as they are.
pub struct Coalesce<E> {
    /// A piece up to this size is short.
    short: usize,
    /// The most bytes that are put together.
    most: usize,
    /// What came after the last piece and didn't fit.
    ahead: Option<Next<E>>,
}

impl<E> Coalesce<E> {
    pub fn new(short: usize, most: usize) -> Coalesce<E> {
        Coalesce { short, most, ahead: None }
    }

    /// The next piece, with as many short ones after it as are here and fit. It waits only for the first.
    pub fn poll(&mut self, mut next: impl FnMut() -> Poll<Next<E>>) -> Poll<Next<E>> {
        let first = match ready!(self.ahead.take().map_or_else(&mut next, Poll::Ready)) {
            Some(Ok(piece)) if piece.len() <= self.short => piece,
            other => return Poll::Ready(other),
        };
        let mut n_bytes = first.len();
        let mut gathered = BytesMut::new();
        while n_bytes + self.short <= self.most {
            match next() {
                Poll::Ready(Some(Ok(piece))) if piece.len() <= self.short => {
                    if gathered.is_empty() {
                        gathered.reserve((4 * first.len()).clamp(n_bytes + piece.len(), self.most));
                        gathered.extend_from_slice(&first);
                    }
                    gathered.extend_from_slice(&piece);
                    n_bytes += piece.len();
                }
                Poll::Ready(other) => {
                    self.ahead = Some(other);
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(if gathered.is_empty() { first } else { gathered.freeze() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: usize = 4;
    const MOST: usize = 12;

    /// What a body becomes; `None` in it stands for a wait.
    fn gathered(body: &[Option<Result<&'static str, u8>>]) -> Vec<Poll<Next<u8>>> {
        let mut coalesce = Coalesce::new(SHORT, MOST);
        let mut rest = body.iter();
        let mut next = || match rest.next() {
            Some(Some(piece)) => Poll::Ready(Some(piece.map(Bytes::from))),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        };
        let mut all = Vec::new();
        while all.last() != Some(&Poll::Ready(None)) {
            all.push(coalesce.poll(&mut next));
        }
        all
    }

    fn piece(text: &'static str) -> Poll<Next<u8>> {
        Poll::Ready(Some(Ok(text.into())))
    }

    #[test]
    fn short_pieces_that_are_here_become_one_and_long_ones_stay_as_they_are() {
        let body = ["a", "bc", "", "a long one", "d", "e"].map(|piece| Some(Ok(piece)));
        assert_eq!(gathered(&body), [piece("abc"), piece("a long one"), piece("de"), Poll::Ready(None)]);
    }

    #[test]
    fn no_more_is_put_together_than_may_be_and_nobody_waits_for_more() {
        let body = [Some(Ok("aaaa")), Some(Ok("bbbb")), Some(Ok("cccc")), Some(Ok("d")), None, Some(Ok("e"))];
        let expected = [piece("aaaabbbbcccc"), piece("d"), piece("e"), Poll::Ready(None)];
        assert_eq!(gathered(&body), expected);
    }

    #[test]
    fn an_error_comes_behind_what_came_before_it() {
        let body = [Some(Ok("a")), Some(Ok("b")), Some(Err(1)), None];
        let error = Poll::Ready(Some(Err(1)));
        assert_eq!(gathered(&body), [piece("ab"), error, Poll::Pending, Poll::Ready(None)]);
    }
}
