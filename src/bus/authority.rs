//! polkit, and what it says.
//!
//! The caller is named to it by the unique name on the bus, of which polkit learns user and process as is done here,
//! since version 124 by a pidfd: so there is no number of a process that could be another's by then, and one way to
//! ask it, old or new.

use std::collections::HashMap;
use std::time::Duration;

use zbus::Connection;
use zbus::wire::Variant;

use super::ANSWER;
use super::caller::Caller;
use super::interface::Need;
use super::refusal::Refusal;

const POLKIT: &str = "org.freedesktop.PolicyKit1";

/// So long a person may take to show who they are.
const PERSON: Duration = Duration::from_secs(120);

/// polkit may ask somebody: `AllowUserInteraction` of its `CheckAuthorizationFlags`.
const ALLOW_INTERACTION: u32 = 1;

/// What is to be allowed.
pub struct Question<'a> {
    /// The unique name of who calls.
    pub sender: &'a str,
    /// What is needed.
    pub need: Need,
    /// The method.
    pub method: &'a str,
    /// The box, if it is about one.
    pub name: Option<&'a str>,
    /// Somebody may be asked for it.
    pub may_ask: bool,
}

/// Whether the caller may. Root may everything, and where there is no polkit nobody else does.
///
/// # Errors
///
/// They may not, in a sentence.
pub async fn check(
    connection: &Connection,
    caller: Caller,
    question: &Question<'_>,
) -> Result<(), Refusal> {
    let Some(action) = question.need.action() else {
        return Ok(());
    };
    if caller.uid == 0 {
        return Ok(());
    }
    let may_not = format!("user {} may not {}", caller.uid, question.need.words());
    let limit = if question.may_ask { PERSON } else { ANSWER };
    let answer = tokio::time::timeout(limit, ask(connection, action, question)).await;
    match answer {
        Ok(Ok((true, _))) => Ok(()),
        Ok(Ok((false, true))) => Err(Refusal::interactive(format!(
            "{may_not} without showing who they are ({action} of polkit)"
        ))),
        Ok(Ok((false, false))) => Err(Refusal::denied(format!("{may_not} ({action} of polkit)"))),
        Ok(Err(error)) => {
            tracing::debug!("polkit does not answer: {error}");
            Err(Refusal::denied(format!(
                "{may_not}: polkit, which could allow it, does not answer"
            )))
        }
        Err(_) => Err(Refusal::denied(format!(
            "{may_not}: polkit has not answered within {} s",
            limit.as_secs()
        ))),
    }
}

/// Whether it is allowed, and else whether it could be.
async fn ask(
    connection: &Connection,
    action: &str,
    question: &Question<'_>,
) -> Result<(bool, bool), zbus::Error> {
    let subject = HashMap::from([("name", Variant::from(question.sender))]);
    // What a rule of polkit can go by.
    let mut details = HashMap::from([("method", question.method)]);
    details.extend(question.name.map(|name| ("box", name)));
    let flags = match question.may_ask {
        true => ALLOW_INTERACTION,
        false => 0,
    };
    let reply = connection
        .call_method(
            Some(POLKIT),
            "/org/freedesktop/PolicyKit1/Authority",
            Some("org.freedesktop.PolicyKit1.Authority"),
            "CheckAuthorization",
            &(("system-bus-name", subject), action, details, flags, ""),
        )
        .await?;
    let body = reply.body();
    let ((is_allowed, could_be, _),): ((bool, bool, HashMap<String, String>),) =
        body.deserialize()?;
    Ok((is_allowed, could_be))
}
