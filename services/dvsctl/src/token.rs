// SPDX-License-Identifier: MIT OR Apache-2.0
//! Join tokens.

use dvs_api::{JoinTokenInfo, TokenCreated, TokenRequest, TokenRevoked};

use crate::arguments::{Output, TokenCommand};
use crate::cluster::Cluster;
use crate::table::Table;
use crate::{duration, print, Failure};

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &TokenCommand,
) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { token, ttl, uses, description } => {
            let ttl_ms = (!ttl.is_zero()).then(|| ttl.as_millis() as u64);
            let description = description.clone().unwrap_or_default();
            let request = TokenRequest { token: token.clone(), ttl_ms, uses: *uses, description };
            let created: TokenCreated = cluster.agreeing()?.post("/v1/tokens", &request)?;
            print(output, &created, || format!("{}\n", created.token))
        }
        TokenCommand::List => {
            let tokens: Vec<JoinTokenInfo> = cluster.any("/v1/tokens")?;
            print(output, &tokens, || list(&tokens))
        }
        TokenCommand::Revoke { id } => {
            let revoked: TokenRevoked = cluster.agreeing()?.delete(&format!("/v1/tokens/{id}"))?;
            print(output, &revoked, || format!("join token {id} is not valid any more\n"))
        }
    }
}

fn list(tokens: &[JoinTokenInfo]) -> String {
    let mut table = Table::new(&["ID", "AGE", "EXPIRES", "USES LEFT", "JOINED", "DESCRIPTION"]);
    for token in tokens {
        table.row([
            token.id.clone(),
            duration(token.age_ms / 1_000),
            token.expires_ms.map_or("never".into(), |ms| format!("in {}", duration(ms / 1_000))),
            token.uses_left.map_or("any".into(), |left| left.to_string()),
            token.machines.join(" "),
            token.description.clone(),
        ]);
    }
    table.to_string()
}
