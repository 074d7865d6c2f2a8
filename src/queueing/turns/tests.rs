//! Turns against their rules, under stepped time.

use proptest::prelude::*;

use super::super::Urgency;
use super::*;

const STEP: Duration = Duration::from_millis(100);

fn asker(level: u8, client: u64) -> Asker {
    Asker {
        urgency: Urgency::new(level).unwrap(),
        client: Client(client),
    }
}

/// Turns, and the time.
struct Bench {
    turns: Turns<u32>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            turns: Turns::new(STEP),
            now: Instant::now(),
        }
    }

    fn come(&mut self, level: u8, client: u64, item: u32) {
        let seat = self.turns.take(asker(level, client), self.now);
        self.turns.push(seat, item);
    }

    fn pass(&mut self, steps: f64) {
        self.now += STEP.mul_f64(steps);
    }

    fn ahead(&self, level: u8, client: u64) -> usize {
        self.turns.ahead(asker(level, client), self.now)
    }

    fn rest(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.turns.pop()).collect()
    }
}

#[test]
fn the_more_urgent_go_first_and_waiting_makes_urgent() {
    let mut bench = Bench::new();
    bench.come(5, 1, 50);
    bench.come(3, 1, 30);
    bench.come(0, 1, 0);
    bench.pass(1.9);
    bench.come(3, 1, 31);
    bench.pass(0.2);
    bench.come(3, 1, 32);
    assert_eq!(bench.rest(), [0, 30, 31, 50, 32]);
    assert!(bench.turns.is_empty() && bench.turns.known.is_empty());
}

#[test]
fn clients_take_turns_and_one_with_much_delays_nobody() {
    let mut bench = Bench::new();
    (0..1000).for_each(|item| bench.come(3, 1, item));
    assert_eq!((bench.ahead(3, 1), bench.ahead(3, 2)), (1000, 1));
    bench.come(3, 2, 2000);
    assert_eq!(
        bench.ahead(3, 2),
        3,
        "its own and a turn of the other before each"
    );
    assert_eq!(bench.ahead(3, 3), 2);
    bench.come(3, 3, 3000);
    bench.come(3, 2, 2001);
    let order = bench.rest();
    assert_eq!(order[..6], [0, 2000, 3000, 1, 2001, 2]);
}

#[test]
fn a_seat_keeps_its_order_while_its_item_is_prepared() {
    let mut bench = Bench::new();
    let [first, second, third] = [0, 1, 2].map(|_| bench.turns.take(asker(3, 1), bench.now));
    assert_eq!((bench.turns.seats(), bench.turns.len()), (3, 0));
    bench.turns.push(third, 3);
    bench.turns.push(first, 1);
    bench.turns.push(second, 2);
    assert_eq!(bench.turns.peek(), Some(&1));
    assert_eq!(bench.rest(), [1, 2, 3]);
    let gone = bench.turns.take(asker(3, 1), bench.now);
    assert_eq!(bench.turns.seats_of(Client(1)), 1);
    bench.turns.give_back(&gone);
    assert_eq!((bench.turns.seats(), bench.turns.seats_of(Client(1))), (0, 0));
}

#[test]
fn only_those_who_waited_long_enough_count_before_the_more_urgent() {
    let mut bench = Bench::new();
    bench.come(7, 1, 0);
    bench.pass(4.0);
    bench.come(7, 2, 1);
    bench.come(2, 2, 2);
    assert_eq!(
        [7, 4, 3, 2, 0].map(|level| bench.ahead(level, 9)),
        [3, 2, 2, 1, 0]
    );
    bench.pass(4.0);
    assert_eq!([3, 2, 0].map(|level| bench.ahead(level, 9)), [3, 2, 2]);
}

#[test]
fn nobody_starves_beside_a_flood_of_the_most_urgent() {
    let mut bench = Bench::new();
    for (item, level) in (1..8).zip(1u8..) {
        bench.come(level, u64::from(level), item);
    }
    // One comes and one goes, ten in each step of time.
    let mut gone = Vec::new();
    for flood in 0..200 {
        bench.come(0, 100 + flood % 7, 1000);
        gone.extend(bench.turns.pop());
        bench.pass(0.1);
    }
    for level in 1..8 {
        let at = gone
            .iter()
            .position(|&item| item == level)
            .expect("it has its turn");
        // Its own steps, and those whose time came before its own.
        assert!(at <= 10 * level as usize + 8, "{level} at {at}");
    }
}

/// What a test does to turns.
#[derive(Clone, Copy, Debug)]
enum Event {
    Take {
        level: u8,
        client: u64,
    },
    /// The item comes, or is known not to come, for one of the seats that are taken.
    Come(prop::sample::Index),
    Leave(prop::sample::Index),
    Pop,
    Pass {
        tenths: u8,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0u8..8, 0u64..4).prop_map(|(level, client)| Event::Take { level, client }),
        7 => any::<prop::sample::Index>().prop_map(Event::Come),
        1 => any::<prop::sample::Index>().prop_map(Event::Leave),
        6 => Just(Event::Pop),
        2 => (0u8..30).prop_map(|tenths| Event::Pass { tenths }),
    ];
    prop::collection::vec(event, 1..300)
}

/// An item as the rules see it.
#[derive(Clone, Copy, Debug)]
struct Known {
    item: u32,
    level: u8,
    client: u64,
    since: Instant,
}

/// The rules, written down plainly.
#[derive(Default)]
struct Rules {
    ready: Vec<Known>,
    /// Of each level, whose turn it is.
    lines: [Vec<u64>; LEVELS],
}

impl Rules {
    fn come(&mut self, known: Known) {
        let line = &mut self.lines[usize::from(known.level)];
        if !line.contains(&known.client) {
            line.push(known.client);
        }
        self.ready.push(known);
        // Items are numbered as seats are.
        self.ready.sort_by_key(|known| known.item);
    }

    fn first_of(&self, level: usize) -> Option<Known> {
        let client = *self.lines[level].first()?;
        let its = |known: &&Known| usize::from(known.level) == level && known.client == client;
        self.ready.iter().find(its).copied()
    }

    fn pop(&mut self) -> Option<u32> {
        let rank = |known: &Known| known.since + STEP * u32::from(known.level);
        let next = (0..LEVELS)
            .filter_map(|level| self.first_of(level))
            .min_by_key(rank)?;
        self.ready.retain(|known| known.item != next.item);
        let line = &mut self.lines[usize::from(next.level)];
        line.remove(0);
        if self
            .ready
            .iter()
            .any(|known| (known.level, known.client) == (next.level, next.client))
        {
            line.push(next.client);
        }
        Some(next.item)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    /// Whatever happens, the order is that of the rules, and the counts are right.
    #[test]
    fn turns_are_as_the_rules_say(events in events()) {
        let (mut bench, mut rules, mut taken, mut items) = (Bench::new(), Rules::default(), Vec::new(), 0u32);
        for event in events {
            match event {
                Event::Take { level, client } => {
                    items += 1;
                    let known = Known { item: items, level, client, since: bench.now };
                    taken.push((bench.turns.take(asker(level, client), bench.now), known));
                }
                Event::Come(which) if !taken.is_empty() => {
                    let (seat, known) = taken.remove(which.index(taken.len()));
                    bench.turns.push(seat, known.item);
                    rules.come(known);
                }
                Event::Leave(which) if !taken.is_empty() => {
                    let (seat, _) = taken.remove(which.index(taken.len()));
                    bench.turns.give_back(&seat);
                }
                Event::Come(_) | Event::Leave(_) => {}
                Event::Pop => prop_assert_eq!(bench.turns.pop(), rules.pop()),
                Event::Pass { tenths } => bench.pass(f64::from(tenths) / 10.0),
            }
            let all = rules.ready.len() + taken.len();
            prop_assert_eq!((bench.turns.len(), bench.turns.seats()), (rules.ready.len(), all));
            for client in 0..4 {
                let its = rules.ready.iter().chain(taken.iter().map(|(_, known)| known));
                let expected = its.filter(|known| known.client == client).count();
                prop_assert_eq!(bench.turns.seats_of(Client(client)), expected);
            }
        }
        while let Some(item) = rules.pop() {
            prop_assert_eq!(bench.turns.pop(), Some(item));
        }
        taken.iter().for_each(|(seat, _)| bench.turns.give_back(seat));
        prop_assert!(bench.turns.known.is_empty() && bench.turns.seats() == 0);
        prop_assert!(bench.turns.levels.iter().all(|level| level.clients == 0));
    }

    /// Where nobody comes meanwhile, no more go before an asker than it was told.
    #[test]
    fn no_more_go_ahead_than_was_told(
        before in prop::collection::vec((0u8..8, 0u64..5, 0u8..20), 0..150),
        level in 0u8..8,
        client in 0u64..6,
    ) {
        let mut bench = Bench::new();
        for (item, (level, client, tenths)) in (0..).zip(before) {
            bench.come(level, client, item);
            bench.pass(f64::from(tenths) / 10.0);
        }
        let told = bench.ahead(level, client);
        bench.come(level, client, u32::MAX);
        let order = bench.rest();
        let found = order.iter().position(|&item| item == u32::MAX).unwrap();
        prop_assert!(found <= told, "{} went before it, {} were told", found, told);
    }

    /// A client with nothing in a level waits, of that level, for at most one item of each other client there, whatever comes
    /// meanwhile.
    #[test]
    fn a_modest_client_waits_for_one_of_each_other(
        before in prop::collection::vec(0u64..6, 0..200),
        after in prop::collection::vec(0u64..9, 0..200),
    ) {
        let mut bench = Bench::new();
        before.iter().for_each(|&client| bench.come(3, client, 0));
        let others = before.iter().collect::<std::collections::BTreeSet<_>>().len();
        bench.come(3, 99, 1);
        let mut after = after.into_iter();
        let mut waited = 0;
        while bench.turns.pop() != Some(1) {
            waited += 1;
            after.by_ref().take(3).for_each(|client| bench.come(3, client, 0));
        }
        prop_assert!(waited <= others, "{} of {}", waited, others);
    }

    /// From the step on at which its urgency is used up, nobody who comes goes before the first of a level.
    #[test]
    fn waiting_ends(
        level in 0u8..8,
        flood in prop::collection::vec((0u8..8, 0u64..50), 300..400),
    ) {
        let mut bench = Bench::new();
        bench.come(level, 99, u32::MAX);
        let mut late = false;
        for (item, (other, client)) in (0..).zip(flood) {
            late |= bench.now.duration_since(bench.turns.origin.unwrap()) > STEP * u32::from(level);
            bench.come(other, client, item * 2 + u32::from(late));
            match bench.turns.pop() {
                Some(u32::MAX) => return Ok(()),
                Some(item) => prop_assert_eq!(item % 2, 0, "it came too late to go before"),
                None => unreachable!("one came"),
            }
            bench.pass(0.05);
        }
        prop_assert!(false, "it had no turn");
    }
}
