// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The link protocol against a model, over a network that misbehaves by a seed.

mod hostile;
mod lifecycle;
mod stream;
mod world;
