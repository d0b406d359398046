// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a question gets there and its answer back: one message, and memory that is lent for it.

use dvk::GrantId;

use crate::question::{Answer, Question};

dvk::error_codes! {
    /// Why a question was not taken.
    pub enum ExchangeError {
        /// What the memory says is no question that is known there.
        Garbled = 1, "the question cannot be decoded: the program or the node is of another release";
        /// The question is too long, or the memory cannot hold the answer.
        Size = 2, "the question is too long, or the memory too small for its answer";
        /// The memory cannot be read or written.
        Memory = 3, "the memory that the question names cannot be reached";
        /// Too many questions of the container are being answered on this node.
        Busy = 4, "too many questions are being answered for this container on this node; ask again";
    }
}

dvk::protocol! {
    /// The services of a container, as `dvsd` answers for them.
    pub trait Exchange: client ExchangeClient, error ExchangeError {
        /// Asks what the memory says, and puts the answer there. The result is how many bytes that has.
        fn ask(Ask = 0x6476_7301 {
            /// The memory: lent to the server for reading and writing.
            memory: GrantId,
            /// How many bytes of it are the question, from its beginning on.
            question: u32,
            /// How many bytes it has.
            bytes: u32,
        }) -> u32;
    }
}

/// A question as it stands in memory.
///
/// # Errors
/// [`ExchangeError::Size`] if it is too long.
pub(crate) fn write_question(question: &Question) -> Result<Vec<u8>, ExchangeError> {
    let bytes = postcard::to_allocvec(question).map_err(|_| ExchangeError::Size)?;
    match bytes.len() <= crate::QUESTION_BYTES_MAX {
        true => Ok(bytes),
        false => Err(ExchangeError::Size),
    }
}

/// The question that stands in memory.
///
/// # Errors
/// [`ExchangeError::Garbled`].
pub fn read_question(bytes: &[u8]) -> Result<Question, ExchangeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((question, [])) => Ok(question),
        Ok(_) | Err(_) => Err(ExchangeError::Garbled),
    }
}

/// An answer as it stands in memory.
///
/// # Errors
/// [`ExchangeError::Size`] if there is no memory for it.
pub fn write_answer(answer: &Answer) -> Result<Vec<u8>, ExchangeError> {
    postcard::to_allocvec(answer).map_err(|_| ExchangeError::Size)
}

/// The answer that stands in memory.
///
/// # Errors
/// [`ExchangeError::Garbled`].
pub fn read_answer(bytes: &[u8]) -> Result<Answer, ExchangeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((answer, [])) => Ok(answer),
        Ok(_) | Err(_) => Err(ExchangeError::Garbled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Lease, Line, Operation, Reason, Refusal, Transaction};
    use proptest::prelude::*;

    /// Numbers of variants are part of what programs and nodes of other versions understand.
    #[test]
    fn what_stands_in_memory_is_what_was_agreed_on() {
        let written = |question| write_question(&question).unwrap();
        let keep = Question::KeepAlive { lease: Lease(300) };
        assert_eq!(written(keep.clone()), [4, 0xac, 2]);
        assert_eq!(read_question(&[4, 0xac, 2]), Ok(keep));
        let read = Question::Read { key: b"k".to_vec(), exact: true, limit: 1, stale: false };
        assert_eq!(written(read), [0, 1, b'k', 1, 1, 0]);
        let last = Question::Acknowledge { group: "g".into(), lease: Lease(1), up_to: 2 };
        assert_eq!(written(last), [20, 1, b'g', 1, 2]);
        let answer = Answer::Line(Line::Holding { fence: 7 });
        assert_eq!(write_answer(&answer).unwrap(), [4, 0, 7]);
        let refused = Answer::Refused(Refusal { reason: Reason::Unknown, text: "x".into() });
        assert_eq!(write_answer(&refused).unwrap(), [11, 7, 1, b'x']);
        assert_eq!(read_answer(&[11, 7, 1, b'x']), Ok(refused));
    }

    #[test]
    fn a_question_that_is_too_long_is_none() {
        let value = vec![0; crate::QUESTION_BYTES_MAX];
        let put = Operation::Put { key: b"k".to_vec(), value, lease: None };
        let long = Question::Transact(Transaction { then: vec![put], ..Transaction::default() });
        assert_eq!(write_question(&long), Err(ExchangeError::Size));
        assert_eq!(read_question(&[4, 1, 0]), Err(ExchangeError::Garbled), "something follows it");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(question) = read_question(&bytes) {
                prop_assert_eq!(read_question(&write_question(&question).unwrap()), Ok(question));
            }
            // It says why not, and no more.
            let _ = read_answer(&bytes);
        }
    }
}
