//! Sockets: what the service manager opens for the box, as far as the box and its operator must know.

use super::problem::{Findings, Reason};
use super::{Socket, exposure};
use crate::definition::{Address, Definition};
use crate::host::Host;

/// The sockets of a definition, in the order in which the payload finds them.
pub(super) fn of(definition: &Definition, host: &Host, findings: &mut Findings) -> Vec<Socket> {
    let units = definition.socket_units();
    let sockets = definition.sockets.iter().zip(units).enumerate();
    sockets
        .map(|(index, (socket, unit))| {
            for listen in &socket.listen {
                let Address::Unix(path) = &listen.address else {
                    continue;
                };
                let real = host.sockets.get(path).unwrap_or(path);
                let Some(exposure) = exposure::of_socket(path, real) else {
                    continue;
                };
                if socket.sensitive {
                    findings.remark(format!(
                        "{} {exposure}: the box listens there",
                        path.display()
                    ));
                } else {
                    let path = path.clone();
                    let key = format!("socket[{}]", index + 1);
                    findings.refuse(key, Reason::SensitiveSocket { path, exposure });
                }
            }
            Socket {
                unit,
                name: socket.descriptor_name(&definition.name),
                listen: socket.listen.clone(),
                options: socket.options.clone(),
            }
        })
        .collect()
}
