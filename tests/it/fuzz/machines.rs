//! Small state machines that a peer drives: strikes, allowances, the lobby, the dialer, clocks.

use std::collections::BTreeMap;

use lattice::{
    limits::{
        DIAL_AGAIN_MAX_MS, DIAL_AGAIN_MIN_MS, HELLOS_MAX, SHUT_OUT_MAX_MS, SHUT_OUT_MIN_MS,
        SYNC_EVERY_MS, SYNC_RETRY_MS,
    },
    protocol::{
        hlc::Hlc,
        peer::{
            Allowance, DialStep, Dialer, Lobby, Rate, ShutOut, Strikes, SyncEvent, SyncStep,
            busy_wait_ms, median_ms, sync_step,
        },
    },
};

use crate::support::{
    mutator::{number, soaked},
    random::{Random, for_each_seed},
};

// A clock that mostly goes on by a little, and sometimes jumps anywhere.
fn tick(now_ms: &mut u64, random: &mut Random) {
    *now_ms = match random.below(8) {
        0 => number(random),
        1 => now_ms.saturating_sub(number(random)),
        _on => now_ms.saturating_add(random.bits() % 100_000),
    };
}

#[test]
fn n2_strikes_at_any_times() {
    for_each_seed(1..=soaked(500), |random| {
        let mut strikes = Strikes::default();
        let mut now_ms = 0;
        for count in 1..=200 {
            tick(&mut now_ms, random);
            if let Some(wait_ms) = strikes.strike(now_ms) {
                assert!((SHUT_OUT_MIN_MS..=SHUT_OUT_MAX_MS).contains(&wait_ms));
                let shut_out = ShutOut::new(now_ms, wait_ms);
                let left_ms = shut_out.left_ms(now_ms);
                assert!(left_ms.is_none_or(|left_ms| left_ms <= wait_ms));
                assert_eq!(shut_out.left_ms(u64::MAX), None, "it ends");
            }
            assert_eq!(strikes.total(), count);
        }
    });
}

#[test]
fn n2_allowance_at_any_times() {
    for_each_seed(1..=soaked(500), |random| {
        let small = |random: &mut Random| u32::try_from(number(random) & 0xffff_ffff).unwrap();
        let rate = Rate {
            per_s: small(random),
            reserve: small(random),
        };
        // Where all numbers are of one size, an allowance is used up.
        let is_tight = random.once_in(2);
        let tight = |number: u32| number % 50;
        let rate = if is_tight {
            Rate {
                per_s: tight(rate.per_s),
                reserve: tight(rate.reserve),
            }
        } else {
            rate
        };
        let mut allowance = Allowance::new(rate);
        let (mut now_ms, mut newest_ms) = (0, 0);
        let mut taken = 0_u128;
        for _ in 0..100 {
            if is_tight {
                // The clock goes on, and back again, by up to a second.
                now_ms = (now_ms + random.bits() % 1000).saturating_sub(random.bits() % 1000);
            } else {
                tick(&mut now_ms, random);
            }
            newest_ms = now_ms.max(newest_ms);
            let units = if is_tight {
                tight(small(random))
            } else {
                small(random)
            };
            if random.once_in(3) {
                allowance.spend(units, now_ms);
            } else if allowance.take(units, now_ms) {
                taken += u128::from(units);
            }
            let wait_ms = allowance.wait_ms(units, now_ms);
            assert!(wait_ms > 0 || allowance.take(0, now_ms));
            let more = rate.reserve.checked_add(1);
            let is_capped = more.is_none_or(|more| allowance.wait_ms(more, now_ms) > 0);
            assert!(is_capped, "never more than the reserve at a time");
            let filled = u128::from(newest_ms) * u128::from(rate.per_s) / 1000;
            assert!(
                taken <= u128::from(rate.reserve) + filled,
                "never more than the rate"
            );
        }
    });
}

#[test]
fn n8_lobby_with_any_guests() {
    for_each_seed(1..=soaked(500), |random| {
        let mut lobby = Lobby::default();
        let mut guests: BTreeMap<u64, usize> = BTreeMap::new();
        for _ in 0..200 {
            if random.once_in(4) {
                let number = number(random) % 200;
                lobby.leave(number);
                guests.remove(&number);
            } else {
                let sources = 1 + random.below(8);
                let source = random.below(sources);
                let (number, goes) = lobby.enter(source);
                assert_eq!(guests.insert(number, source), None, "a number is new");
                let of = |source: usize| guests.values().filter(|it| **it == source).count();
                let most = guests.values().map(|source| of(*source)).max();
                if let Some(goes) = goes {
                    let source = guests[&goes];
                    assert_eq!(
                        Some(of(source)),
                        most,
                        "the source with most guests gives way"
                    );
                    guests.remove(&goes);
                }
            }
            assert_eq!(lobby.len(), guests.len());
            assert!(lobby.len() <= HELLOS_MAX);
        }
    });
}

#[test]
fn n8_dialer_and_steps_of_a_peer() {
    for_each_seed(1..=soaked(500), |random| {
        let mut dialer = Dialer::default();
        for _ in 0..100 {
            let admitted = random.once_in(2);
            let shut_out_ms = random.once_in(3).then(|| number(random));
            let connection = random.once_in(3).then_some('c');
            match dialer.next(admitted, shut_out_ms, connection) {
                DialStep::End => assert!(!admitted),
                DialStep::Wait(wait_ms) => assert_eq!(shut_out_ms, Some(wait_ms)),
                DialStep::Stay(stays) => {
                    assert_eq!((connection, shut_out_ms), (Some(stays), None));
                }
                DialStep::Dial => {
                    assert_eq!((connection, shut_out_ms), (None, None));
                    let wait_ms = dialer.on_dial_failed(random.bits());
                    let longest_ms = DIAL_AGAIN_MAX_MS * 3 / 2;
                    assert!((DIAL_AGAIN_MIN_MS / 2..=longest_ms).contains(&wait_ms));
                }
            }
            if random.once_in(10) {
                dialer.on_woken();
            }
            let events = [
                SyncEvent::Connected { dialled: true },
                SyncEvent::Connected { dialled: false },
                SyncEvent::Synced,
                SyncEvent::Failed,
                SyncEvent::Rested,
                SyncEvent::Wanted,
                SyncEvent::Due,
                SyncEvent::Exchanged,
            ];
            match sync_step(events[random.below(8)], random.bits()) {
                SyncStep::Sync | SyncStep::Exchange => {}
                SyncStep::Rest(wait_ms) => assert_eq!(wait_ms, SYNC_RETRY_MS),
                SyncStep::Listen(wait_ms) => {
                    assert!((SYNC_EVERY_MS / 2..=SYNC_EVERY_MS * 3 / 2).contains(&wait_ms));
                }
            }
            let waited_ms = number(random);
            assert!(busy_wait_ms(waited_ms).is_none_or(|wait_ms| wait_ms > 0));
        }
    });
}

#[test]
fn t2_t4_clocks_at_their_ends() {
    for_each_seed(1..=soaked(2000), |random| {
        let signed = |random: &mut Random| number(random).cast_signed();
        let clocks: Vec<i64> = (0..random.below(9)).map(|_| signed(random)).collect();
        let median = median_ms(clocks.clone());
        assert_eq!(median.is_none(), clocks.is_empty());
        assert!(median.is_none_or(|median| clocks.contains(&median)));
        let stamp = Hlc::new(number(random), u32::MAX - u32::from(random.once_in(2)));
        if let Some(stamp) = stamp
            && let Ok(next) = stamp.next(number(random))
        {
            assert!(next > stamp);
            assert_eq!(Hlc::new(next.wall_ms, next.counter), Some(next));
        }
    });
}
