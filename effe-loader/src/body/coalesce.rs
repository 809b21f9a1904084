//! Takes the pieces of a body that are here together, so that a reader on another thread is woken once for all of them;
//! and puts short ones into one, since to hand a piece on costs more than to copy it.

use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};

/// The next piece, an error, or `None` at the end of a body.
type Next<E> = Option<Result<Bytes, E>>;

/// Takes pieces together, in their order. Short ones become one, and long ones stay as they are.
pub struct Coalesce<E> {
    /// A piece up to this size is short.
    short: usize,
    /// The most bytes that are taken together.
    most: usize,
    /// What came after the last piece and didn't fit.
    ahead: Option<Next<E>>,
}

impl<E> Coalesce<E> {
    pub fn new(short: usize, most: usize) -> Coalesce<E> {
        Coalesce { short, most, ahead: None }
    }

    /// Adds the next piece to `together`, and as many after it as are here and fit, if they are as long as the ones
    /// before them. It waits only for the first. `None` at the end of the body.
    pub fn poll(
        &mut self,
        together: &mut Vec<Bytes>,
        mut next: impl FnMut() -> Poll<Next<E>>,
    ) -> Poll<Option<Result<(), E>>> {
        let mut piece = match ready!(self.ahead.take().map_or_else(&mut next, Poll::Ready)) {
            Some(Ok(piece)) => piece,
            other => return Poll::Ready(other.map(|next| next.map(drop))),
        };
        let (mut n_bytes, mut gathered) = (0, Gathered::default());
        loop {
            let len = piece.len();
            n_bytes += len;
            if len > self.short {
                gathered.end(together);
                together.push(piece);
            } else {
                gathered.add(piece, self.most);
            }
            if n_bytes + len.max(self.short) > self.most {
                break;
            }
            piece = match next() {
                Poll::Ready(Some(Ok(next))) if n_bytes + next.len() <= self.most => next,
                Poll::Ready(other) => {
                    self.ahead = Some(other);
                    break;
                }
                Poll::Pending => break,
            };
        }
        gathered.end(together);
        Poll::Ready(Some(Ok(())))
    }
}

/// Short pieces that become one.
#[derive(Default)]
struct Gathered {
    /// The first, which is copied once there is a second.
    first: Bytes,
    bytes: BytesMut,
}

impl Gathered {
    fn add(&mut self, piece: Bytes, most: usize) {
        if self.first.is_empty() && self.bytes.is_empty() {
            self.first = piece;
            return;
        }
        if self.bytes.is_empty() {
            let n_bytes = self.first.len() + piece.len();
            self.bytes.reserve((4 * self.first.len()).clamp(n_bytes, most.max(n_bytes)));
            self.bytes.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.bytes.extend_from_slice(&piece);
    }

    fn end(&mut self, together: &mut Vec<Bytes>) {
        let bytes = match std::mem::take(&mut self.bytes) {
            bytes if bytes.is_empty() => std::mem::take(&mut self.first),
            bytes => bytes.freeze(),
        };
        if !bytes.is_empty() {
            together.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: usize = 4;
    const MOST: usize = 12;

    /// What is taken of a body at a time: pieces, an error, or its end. `None` in the body stands for a wait.
    type Taken = Poll<Option<Result<Vec<Bytes>, u8>>>;

    fn taken(body: &[Option<Result<&'static str, u8>>]) -> Vec<Taken> {
        let mut coalesce = Coalesce::new(SHORT, MOST);
        let mut rest = body.iter();
        let mut next = || match rest.next() {
            Some(Some(piece)) => Poll::Ready(Some(piece.map(Bytes::from))),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        };
        let mut all = Vec::new();
        while all.last() != Some(&Poll::Ready(None)) {
            let mut together = Vec::new();
            let polled = coalesce.poll(&mut together, &mut next);
            all.push(polled.map(|next| next.map(|next| next.map(|()| together))));
        }
        all
    }

    fn pieces<const N: usize>(texts: [&'static str; N]) -> Taken {
        Poll::Ready(Some(Ok(texts.map(Bytes::from).into())))
    }

    #[test]
    fn short_pieces_that_are_here_become_one_and_long_ones_stay_as_they_are() {
        let body = ["a", "bc", "", "along", "d", "e"].map(|piece| Some(Ok(piece)));
        assert_eq!(taken(&body), [pieces(["abc", "along"]), pieces(["de"]), Poll::Ready(None)]);
    }

    #[test]
    fn behind_a_long_piece_nothing_is_waited_for_or_read_that_may_not_fit() {
        let body = ["a long piece", "seven b", "c", "seven d", "e"].map(|piece| Some(Ok(piece)));
        let expected =
            [pieces(["a long piece"]), pieces(["seven b"]), pieces(["c", "seven d"]), pieces(["e"])];
        assert_eq!(taken(&body)[..4], expected);
    }

    #[test]
    fn no_more_is_taken_together_than_may_be_and_nobody_waits_for_more() {
        let body = [Some(Ok("aaaa")), Some(Ok("bbbb")), Some(Ok("cccc")), Some(Ok("d")), None, Some(Ok("e"))];
        let expected = [pieces(["aaaabbbbcccc"]), pieces(["d"]), pieces(["e"]), Poll::Ready(None)];
        assert_eq!(taken(&body), expected);
    }

    #[test]
    fn an_error_comes_behind_what_came_before_it() {
        let body = [Some(Ok("a")), Some(Ok("b")), Some(Err(1)), None];
        let error = Poll::Ready(Some(Err(1)));
        assert_eq!(taken(&body), [pieces(["ab"]), error, Poll::Pending, Poll::Ready(None)]);
    }
}
