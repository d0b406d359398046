// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pretended machines that can be started with another image, which is the name of a release.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dvs_bundle::SigningKey;
use dvsd::upgrades::boot::Boot;

/// What became of the images of all machines.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) key: SigningKey,
    /// What each machine runs, if it is not what this was compiled as.
    pub(crate) runs: Mutex<BTreeMap<u8, String>>,
    /// What each machine is to run when it is restarted.
    pub(crate) armed: Mutex<BTreeMap<u8, String>>,
    /// How often each machine was told that its image is good.
    pub(crate) confirmed: Mutex<BTreeMap<u8, u32>>,
    /// Machines that do not take images.
    pub(crate) broken: Mutex<BTreeMap<u8, String>>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            key: SigningKey::generate().unwrap(),
            runs: Mutex::default(),
            armed: Mutex::default(),
            confirmed: Mutex::default(),
            broken: Mutex::default(),
        }
    }
}

#[allow(dead_code, reason = "not every test needs everything")]
impl Images {
    pub(crate) fn bundle(&self, release: &str) -> Vec<u8> {
        // As large as a test can bear and small enough to have several pieces.
        let image = [release.as_bytes(), &[0; 300_000]].concat();
        dvs_bundle::write(release, std::env::consts::ARCH, &image, &self.key).unwrap()
    }

    pub(crate) fn of(&self, number: u8) -> String {
        let runs = self.runs.lock().unwrap();
        runs.get(&number).cloned().unwrap_or_else(|| env!("CARGO_PKG_VERSION").into())
    }

    /// Has a machine boot what it was armed with.
    pub(crate) fn start_armed(&self, number: u8) {
        if let Some(release) = self.armed.lock().unwrap().remove(&number) {
            self.runs.lock().unwrap().insert(number, release);
        }
    }
}

pub(crate) struct FakeBoot {
    pub(crate) number: u8,
    pub(crate) images: Arc<Images>,
}

impl Boot for FakeBoot {
    fn arm(&self, named: &str, image: &[u8], trial_s: u32) -> Result<(), String> {
        assert!(trial_s > 0);
        if let Some(why) = self.images.broken.lock().unwrap().get(&self.number) {
            return Err(why.clone());
        }
        let release = image.split(|byte| *byte == 0).next().unwrap();
        let release = String::from_utf8(release.to_vec()).unwrap();
        assert_eq!(named, release);
        self.images.armed.lock().unwrap().insert(self.number, release);
        Ok(())
    }

    fn confirm(&self) -> Result<(), String> {
        *self.images.confirmed.lock().unwrap().entry(self.number).or_default() += 1;
        Ok(())
    }
}
