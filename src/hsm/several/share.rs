//! Pure. How what waits is shared among the tokens of one key.
//!
//! Each token is kept a little ahead of what it is signing, and no further: what is not given out yet can go to whichever token is
//! ready first, and is not in the hands of one that dies. A token that is slower gets what it can finish by the time that all of
//! them together are done, which may be nothing.

use std::time::Duration;

use crate::hsm::QUEUE_ITEMS_MAX;

/// What is known of a token when something is shared out.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether it may be given anything.
    pub ready: bool,
    /// How many items it signs at a time, 1 or more.
    pub sessions: usize,
    /// Items given to it and not answered.
    pub given: usize,
    /// How long one session takes for an item; `None` while nobody knows.
    pub item: Option<Duration>,
}

/// For how long a token is kept busy with what it was given: many times what it takes to give it more.
const AHEAD_NS: u128 = 20_000_000;
/// Items for each session that a token is kept ahead by at least: one that is signed, one that waits behind it.
const EACH_SESSION: usize = 2;
/// What an item is taken to need while no token was seen to sign one. All tokens are taken for equal then, so the number hardly
/// matters. No official reference.
const ITEM_UNKNOWN_NS: u128 = 5_000_000;
/// Items in so many nanoseconds are what rates are counted in, so that whole numbers do.
const RATE_NS: u128 = 1_000_000_000_000;

impl Standing {
    /// How many items it is kept ahead by. One that is not known yet gets one for each session, to be known by.
    fn ahead(&self) -> usize {
        let Some(item) = self.item else { return self.sessions };
        let busy = AHEAD_NS * self.sessions as u128 / item.as_nanos().max(1);
        usize::try_from(busy).unwrap_or(usize::MAX).clamp(EACH_SESSION * self.sessions, QUEUE_ITEMS_MAX)
    }
}

/// How many of `waiting` items each token is given now; never more than there are, and none to one that is not ready.
///
/// Something is given whenever no token has anything to do. A token that is alone gets all that its queue takes.
pub fn share(tokens: &[Standing], waiting: usize) -> Vec<usize> {
    let mut shares = vec![0; tokens.len()];
    let ready: Vec<usize> = (0..tokens.len()).filter(|n| tokens[*n].ready).collect();
    match ready.as_slice() {
        [] => {}
        [alone] => shares[*alone] = waiting.min(QUEUE_ITEMS_MAX.saturating_sub(tokens[*alone].given)),
        _ => among(tokens, ready, waiting, &mut shares),
    }
    shares
}

fn among(tokens: &[Standing], mut ready: Vec<usize>, waiting: usize, shares: &mut [usize]) {
    let known: Vec<u128> = ready.iter().filter_map(|n| tokens[*n].item).map(|item| item.as_nanos()).collect();
    let assumed = known.iter().sum::<u128>().checked_div(known.len() as u128).unwrap_or(ITEM_UNKNOWN_NS);
    let item = |n: usize| tokens[n].item.map_or(assumed, |item| item.as_nanos()).max(1);
    let rate = |n: usize| RATE_NS * tokens[n].sessions as u128 / item(n);
    let all = waiting + ready.iter().map(|n| tokens[*n].given).sum::<usize>();
    // When all of them together would be done with everything.
    let done_ns = all as u128 * RATE_NS / ready.iter().map(|n| rate(*n)).sum::<u128>().max(1);
    // Whoever would be done with one more item first comes first.
    ready.sort_by_key(|n| ((tokens[*n].given + 1).div_ceil(tokens[*n].sessions) as u128) * item(*n));
    let mut left = waiting;
    for n in &ready {
        let token = &tokens[*n];
        let by_then = usize::try_from(done_ns / item(*n)).unwrap_or(usize::MAX).saturating_mul(token.sessions);
        let ahead = token.ahead();
        let room = by_then.min(ahead).saturating_sub(token.given).min(left);
        // A few at a time would cost more than they bring, while it has others to go on with.
        if room >= left.min(ahead / 4) {
            shares[*n] = room;
            left -= room;
        }
    }
    if left == waiting
        && let Some(first) = ready.first()
    {
        let token = &tokens[*first];
        shares[*first] = (EACH_SESSION * token.sessions).saturating_sub(token.given).min(waiting);
    }
}

#[cfg(test)]
mod tests;
