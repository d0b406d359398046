// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Frames: the unit that a transport carries between two nodes.
