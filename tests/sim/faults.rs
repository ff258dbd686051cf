//! What goes wrong on purpose: instances die and freeze, disks fail, the store's servers crash, freeze, fall behind and are
//! replaced. And what goes on beside the traffic: credits, and mediation.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::disk::Fault;
use super::world::World;

/// Begins everything that the options ask for.
pub fn begin(world: &Rc<World>) -> Vec<JoinHandle<()>> {
    let options = &world.options;
    vec![
        again_and_again(world, "crashes", options.crash_every, async |world, chance| crash(world, chance)),
        again_and_again(world, "freezes", options.freeze_every, async |world, chance| freeze(world, chance)),
        again_and_again(world, "disks", options.disk_fault_every, async |world, chance| fail_disk(world, chance)),
        again_and_again(world, "servers", options.store_fault_every, async |world, chance| {
            world.store.trouble(world, chance).await;
        }),
        spawn_local(credit(Rc::clone(world))),
        spawn_local(mediate(Rc::clone(world))),
    ]
}

/// Does something again and again, `every` so many seconds on average; never where it is 0.
fn again_and_again(
    world: &Rc<World>,
    name: &'static str,
    every: u64,
    act: impl AsyncFn(&World, &mut Chance) + 'static,
) -> JoinHandle<()> {
    let world = Rc::clone(world);
    spawn_local(async move {
        if every == 0 {
            return;
        }
        let mut chance = world.chance.stream(name, 0);
        loop {
            sleep(chance.millis(1, 2000 * every)).await;
            act(&world, &mut chance).await;
        }
    })
}

/// An instance dies: now, at one of its next commands to the store, or at one of its next operations on files.
fn crash(world: &World, chance: &mut Chance) {
    let alive = world.alive();
    if alive.is_empty() {
        return;
    }
    let (place, life) = *chance.one_of(&alive);
    match chance.below(3) {
        0 => world.kill(life),
        1 => world.lines.die_in(life, chance.between(1, 60)),
        _ => {
            let mut disk = world.disks[place].disk();
            let at = disk.operations + chance.below(40) as usize;
            disk.fault = Some((at, Fault::Crash { effective: chance.permille(500) }));
        }
    }
}

/// An instance stands still, sometimes for so long that others take over what it has begun. Or it goes on, and nothing
/// of it gets through for a while, and then all of it does.
pub fn freeze(world: &World, chance: &mut Chance) {
    let alive = world.alive();
    if alive.is_empty() {
        return;
    }
    let (_, life) = *chance.one_of(&alive);
    match chance.below(4) {
        0 => world.freeze(life, chance.millis(30_000, 90_000)),
        1 | 2 => world.freeze(life, chance.millis(200, 10_000)),
        _ => world.lines.hold(life, Instant::now() + chance.millis(500, 10_000)),
    }
}

fn fail_disk(world: &World, chance: &mut Chance) {
    let disk = chance.one_of(&world.disks);
    let mut disk = disk.disk();
    let at = disk.operations + chance.below(40) as usize;
    let kinds = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other, std::io::ErrorKind::PermissionDenied];
    disk.fault = Some((at, Fault::Fails(*chance.one_of(&kinds))));
}

async fn credit(world: Rc<World>) {
    let mut chance = world.chance.stream("credits", 0);
    for number in 0.. {
        sleep(chance.millis(1000, 60_000)).await;
        let account = chance.below(world.options.accounts);
        let amount = chance.between(1_000, 300_000) as i64;
        // It must be done in the end, whatever becomes of this task.
        let world = Rc::clone(&world);
        let _until_done = spawn_local(async move { world.credit(account, amount, &format!("{number}")).await });
    }
}

async fn mediate(world: Rc<World>) {
    let mut chance = world.chance.stream("mediation", 0);
    loop {
        sleep(chance.millis(1000, 120_000)).await;
        world.collect();
    }
}

/// For how long a server is away.
pub fn away(chance: &mut Chance) -> Duration {
    chance.millis(200, 8_000)
}
