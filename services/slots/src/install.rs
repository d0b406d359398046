// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps by which images come, are confirmed and are given up. After each of them, done or not, the disk boots a confirmed image or one
//! that is being tried.

use crate::slots::{Image, Mark, Number, Slots};

/// The file that an image is written to before it is one. The loader does not look at it.
pub const TEMPORARY: &str = "dvs.new";

/// One change of the files in [`FOLDER`](crate::slots::FOLDER). Each is to have reached the disk before the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Remove a file.
    Remove(String),
    /// Write the image to [`TEMPORARY`], and read it back to compare its hash.
    Write,
    /// Give a file another name.
    Rename {
        /// From this.
        from: String,
        /// To this.
        to: String,
    },
}

/// Why an image cannot be installed, confirmed or given up now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The last one is being tried.
    #[error("image {0} is still being tried; wait until it is confirmed or given up")]
    Trying(Number),
    /// There is nothing to fall back to.
    #[error("no image on this disk is confirmed, so that a new one could not be given up")]
    NothingConfirmed,
    /// It is not on the disk.
    #[error("there is no image {0} on this disk")]
    NoSuchImage(Number),
    /// It was given up before.
    #[error("image {0} has been given up")]
    GivenUp(Number),
    /// The numbers are used up.
    #[error("there is no number left for another image")]
    NoNumber,
}

/// What it takes to install an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The number that it gets.
    pub number: Number,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// How to install an image beside the one that is confirmed. All others go first: there are two slots.
///
/// # Errors
/// [`Refusal`] while an image is being tried, or when nothing is confirmed.
pub fn install(slots: &Slots) -> Result<Plan, Refusal> {
    let confirmed = slots.confirmed().ok_or(Refusal::NothingConfirmed)?;
    let trying = slots.images().find(|image| image.mark != Mark::Confirmed && !image.mark.is_bad());
    if let Some(trying) = trying {
        return Err(Refusal::Trying(trying.number));
    }
    let last = slots.images().next_back().map_or(confirmed.number, |image| image.number);
    let number = last.checked_add(1).ok_or(Refusal::NoNumber)?;
    let fresh = Image { number, mark: Mark::FRESH };
    let others = slots.images().filter(|image| *image != confirmed);
    let mut steps: Vec<_> = others.map(|image| Step::Remove(image.to_string())).collect();
    steps.push(Step::Write);
    steps.push(Step::Rename { from: TEMPORARY.to_owned(), to: fresh.to_string() });
    Ok(Plan { number, steps })
}

/// The step that confirms image `number`, with which the node works; `None` when it is confirmed.
///
/// # Errors
/// [`Refusal`] when it is not there. An image whose last try this is can still be confirmed.
pub fn confirm(slots: &Slots, number: Number) -> Result<Option<Step>, Refusal> {
    let image = slots.image(number).ok_or(Refusal::NoSuchImage(number))?;
    Ok(renamed(image, Mark::Confirmed))
}

/// The step that gives image `number` up, so that the loader starts another; `None` when it has been.
///
/// # Errors
/// [`Refusal`] when it is not there, or no other image is confirmed.
pub fn give_up(slots: &Slots, number: Number) -> Result<Option<Step>, Refusal> {
    let image = slots.image(number).ok_or(Refusal::NoSuchImage(number))?;
    let other = slots.images().any(|other| other.number != number && other.mark == Mark::Confirmed);
    if !other {
        return Err(Refusal::NothingConfirmed);
    }
    if image.mark.is_bad() {
        return Ok(None);
    }
    let done = match image.mark {
        Mark::Confirmed => 0,
        Mark::Counting { done, .. } => done,
    };
    Ok(renamed(image, Mark::Counting { left: 0, done }))
}

fn renamed(image: Image, mark: Mark) -> Option<Step> {
    let new = Image { mark, ..image };
    (new != image).then(|| Step::Rename { from: image.to_string(), to: new.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(names: &[&str]) -> Slots {
        Slots::of_names(names.iter().copied())
    }

    #[test]
    fn a_new_image_takes_the_slot_that_is_not_confirmed() {
        let plan = install(&slots(&["dvs-7.efi", "dvs-8.efi"])).unwrap();
        assert_eq!(plan.number, 9);
        let rename = Step::Rename { from: TEMPORARY.to_owned(), to: "dvs-9+3.efi".to_owned() };
        assert_eq!(plan.steps, [Step::Remove("dvs-7.efi".to_owned()), Step::Write, rename]);
        let plan = install(&slots(&["dvs-7.efi", "dvs-8+0-3.efi"])).unwrap();
        assert_eq!((plan.number, &plan.steps[0]), (9, &Step::Remove("dvs-8+0-3.efi".to_owned())));
    }

    #[test]
    fn nothing_is_installed_without_something_to_fall_back_to() {
        assert_eq!(install(&slots(&[])), Err(Refusal::NothingConfirmed));
        assert_eq!(install(&slots(&["dvs-1+3.efi"])), Err(Refusal::NothingConfirmed));
        let trying = slots(&["dvs-1.efi", "dvs-2+1-2.efi"]);
        assert_eq!(install(&trying), Err(Refusal::Trying(2)));
        assert_eq!(give_up(&slots(&["dvs-1.efi"]), 1), Err(Refusal::NothingConfirmed));
    }

    #[test]
    fn an_image_is_confirmed_even_in_its_last_try() {
        let last = slots(&["dvs-1.efi", "dvs-2+0-3.efi"]);
        let step = Step::Rename { from: "dvs-2+0-3.efi".to_owned(), to: "dvs-2.efi".to_owned() };
        assert_eq!(confirm(&last, 2), Ok(Some(step)));
        assert_eq!(confirm(&last, 1), Ok(None));
        assert_eq!(confirm(&last, 3), Err(Refusal::NoSuchImage(3)));
    }

    #[test]
    fn going_back_is_giving_up_the_newer_one() {
        let both = slots(&["dvs-1.efi", "dvs-2.efi"]);
        let step = Step::Rename { from: "dvs-2.efi".to_owned(), to: "dvs-2+0.efi".to_owned() };
        assert_eq!(give_up(&both, 2), Ok(Some(step)));
        let done = slots(&["dvs-1.efi", "dvs-2+0.efi"]);
        assert_eq!(give_up(&done, 2), Ok(None));
        assert_eq!(done.next().map(|next| next.number), Some(1));
    }
}
