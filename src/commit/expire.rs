//! Expiry in the same commit: which snapshots go, which are tagged, and which files nothing reaches any more.
//!
//! Days of time travel do not come from keeping a snapshot for every commit but from tags: the first commit of an hour
//! tags its parent `hourly-2026-11-22T10Z` (the state at the end of that hour), the first of a day `daily-2026-11-22`.
//!
//! Table properties, all optional:
//! - `history.expire.min-snapshots-to-keep` (Iceberg's default 1; calve creates tables with 50),
//!   `history.expire.max-snapshot-age-ms` (5 days; calve creates tables with 1, so that only the number counts);
//! - `calve.tags.hourly`: hours an hourly tag is kept, default 48, 0 = no such tags;
//! - `calve.tags.daily`: days a daily tag is kept, default 30, 0 = no such tags;
//! - `gc.enabled` (Iceberg's, default true): with false, snapshots stay until somebody says otherwise;
//! - `calve.metadata.bytes-max`: the metadata file's size, default 262144. When it would be exceeded, snapshots beyond
//!   the minimum go first whatever their age, then hourly tags, then daily ones, oldest first.

use std::collections::{BTreeSet, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use iceberg::TableUpdate;
use iceberg::spec::{
    MAIN_BRANCH, ManifestFile, Snapshot, SnapshotRef, SnapshotReference, SnapshotRetention, TableMetadata,
};
use iceberg::table::Table;
use serde::Deserialize;

use super::ancestry::line;
use super::manifests::load_list;
use crate::error::{Error, Result};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Snapshots that no ref reaches (left by a rollback, or staged by others) are kept so long, to be rolled forward to.
const UNREFERENCED_KEPT_MS: i64 = DAY_MS;

/// What consumers still need may push the metadata file beyond its size, up to this multiple.
const NEEDED_FACTOR: usize = 4;

/// Manifest lists read to learn what snapshots off main's line still reach; with more of them nothing is deleted.
const BRANCH_LISTS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub snapshots_min: usize,
    pub age_ms_max: i64,
    pub hourly_tags: i64,
    pub daily_tags: i64,
    pub metadata_bytes_max: usize,
    /// Whether snapshots go at all.
    pub expires: bool,
}

impl Policy {
    pub fn of(metadata: &TableMetadata) -> Policy {
        fn property<T: std::str::FromStr>(metadata: &TableMetadata, key: &str, default: T) -> T {
            metadata.properties().get(key).and_then(|value| value.trim().parse().ok()).unwrap_or(default)
        }
        Policy {
            snapshots_min: property(metadata, "history.expire.min-snapshots-to-keep", 1).max(1),
            age_ms_max: property(metadata, "history.expire.max-snapshot-age-ms", 5 * DAY_MS),
            hourly_tags: property(metadata, "calve.tags.hourly", 48),
            daily_tags: property(metadata, "calve.tags.daily", 30),
            metadata_bytes_max: property(metadata, "calve.metadata.bytes-max", 256 * 1024),
            expires: property(metadata, "gc.enabled", true),
        }
    }
}

/// What the iceberg crate keeps to itself of a table's metadata: all refs, and the size of the file.
#[derive(Clone, Debug, Default)]
pub struct Refs {
    pub refs: HashMap<String, SnapshotReference>,
    pub metadata_bytes: usize,
}

impl Refs {
    pub fn of(metadata: &TableMetadata) -> Result<Refs> {
        #[derive(Deserialize)]
        struct Part {
            #[serde(default)]
            refs: HashMap<String, SnapshotReference>,
        }
        let unreadable = |error: serde_json::Error| {
            Error::halt("the table's metadata cannot be written as JSON").caused_by(anyhow::anyhow!("{error}"))
        };
        let json = serde_json::to_vec(metadata).map_err(unreadable)?;
        let part: Part = serde_json::from_slice(&json).map_err(unreadable)?;
        Ok(Refs { refs: part.refs, metadata_bytes: json.len() })
    }

    /// The branch main with the retention it has, at `snapshot`.
    pub fn main_at(&self, snapshot: i64) -> SnapshotReference {
        match self.refs.get(MAIN_BRANCH) {
            Some(main) => SnapshotReference::new(snapshot, main.retention.clone()),
            None => SnapshotReference::new(
                snapshot,
                SnapshotRetention::Branch {
                    min_snapshots_to_keep: None,
                    max_snapshot_age_ms: None,
                    max_ref_age_ms: None,
                },
            ),
        }
    }
}

/// What a commit does beside adding its snapshot.
#[derive(Debug, Default)]
pub struct Plan {
    pub updates: Vec<TableUpdate>,
    /// The snapshots that go.
    pub removed: Vec<SnapshotRef>,
}

/// Decides what goes when `new` is added on top of `metadata`'s head. `needed` are snapshots that consumers (watermarks
/// of refinements) still need: they stay, and what came after them on main's line too.
pub fn plan(
    metadata: &TableMetadata,
    refs: &Refs,
    new: &Snapshot,
    needed: &BTreeSet<i64>,
    policy: &Policy,
    now_ms: i64,
) -> Plan {
    let main = line(metadata, metadata.current_snapshot_id());
    let mut tags = Tags::new(refs, policy);
    tags.add(main.first(), new, policy);
    tags.expire(metadata, now_ms);
    if !policy.expires {
        return Plan { updates: tags.updates, removed: Vec::new() };
    }

    // By how hard a snapshot is held; what no rule holds goes.
    let mut hard: HashSet<i64> = HashSet::new();
    let mut soft: Vec<i64> = Vec::new(); // oldest last
    let (main_min, main_age) = retention(refs.refs.get(MAIN_BRANCH), policy);
    hard.extend(main.iter().take(main_min.saturating_sub(1)).map(|snapshot| snapshot.snapshot_id()));
    hard.extend(needed);
    let watermark = main.iter().rposition(|snapshot| needed.contains(&snapshot.snapshot_id()));
    for (position, snapshot) in main.iter().enumerate().skip(main_min.saturating_sub(1)) {
        let young = now_ms - snapshot.timestamp_ms() < main_age;
        if young || watermark.is_some_and(|watermark| position < watermark) {
            soft.push(snapshot.snapshot_id());
        }
    }
    let mut referenced: HashSet<i64> = main.iter().map(|snapshot| snapshot.snapshot_id()).collect();
    for (name, reference) in &refs.refs {
        if name == MAIN_BRANCH || tags.is_ours(name) {
            continue;
        }
        hard.insert(reference.snapshot_id);
        referenced.insert(reference.snapshot_id);
        if reference.is_branch() {
            let (min, age) = retention(Some(reference), policy);
            for (position, snapshot) in line(metadata, Some(reference.snapshot_id)).iter().enumerate() {
                referenced.insert(snapshot.snapshot_id());
                if position < min || now_ms - snapshot.timestamp_ms() < age {
                    hard.insert(snapshot.snapshot_id());
                }
            }
        }
    }
    for snapshot in metadata.snapshots() {
        let id = snapshot.snapshot_id();
        let kept_ms = policy.age_ms_max.max(UNREFERENCED_KEPT_MS);
        if !referenced.contains(&id) && !tags.holds(id) && now_ms - snapshot.timestamp_ms() < kept_ms {
            soft.push(id);
        }
    }

    let bytes = |id: i64| metadata.snapshot_by_id(id).map_or(0, |snapshot| estimate(snapshot));
    let mut size = refs.metadata_bytes + estimate(new);
    let soft_set: HashSet<i64> = soft.iter().copied().collect();
    for snapshot in metadata.snapshots() {
        let id = snapshot.snapshot_id();
        if !hard.contains(&id) && !soft_set.contains(&id) && !tags.holds(id) {
            size -= estimate(snapshot).min(size);
        }
    }
    let watermark_ids: HashSet<i64> =
        watermark.map(|at| main[..at].iter().map(|snapshot| snapshot.snapshot_id()).collect()).unwrap_or_default();
    let mut dropped: HashSet<i64> = HashSet::new();
    for id in soft.iter().rev() {
        let limit = if watermark_ids.contains(id) {
            policy.metadata_bytes_max * NEEDED_FACTOR
        } else {
            policy.metadata_bytes_max
        };
        if size > limit && !hard.contains(id) && !tags.holds(*id) {
            size -= bytes(*id).min(size);
            dropped.insert(*id);
        }
    }
    while size > policy.metadata_bytes_max
        && let Some(id) = tags.drop_oldest()
    {
        if !hard.contains(&id) && (!soft_set.contains(&id) || dropped.contains(&id)) && !tags.holds(id) {
            size -= bytes(id).min(size);
        }
    }

    let mut removed: Vec<SnapshotRef> = metadata
        .snapshots()
        .filter(|snapshot| {
            let id = snapshot.snapshot_id();
            let held = hard.contains(&id) || (soft_set.contains(&id) && !dropped.contains(&id)) || tags.holds(id);
            !held && id != new.snapshot_id()
        })
        .cloned()
        .collect();
    removed.sort_by_key(|snapshot| snapshot.sequence_number());

    let mut updates = tags.updates;
    if !removed.is_empty() {
        updates.push(TableUpdate::RemoveSnapshots {
            snapshot_ids: removed.iter().map(|snapshot| snapshot.snapshot_id()).collect(),
        });
    }
    Plan { updates, removed }
}

/// A branch's own retention, or the table's.
fn retention(reference: Option<&SnapshotReference>, policy: &Policy) -> (usize, i64) {
    match reference.map(|reference| &reference.retention) {
        Some(SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, .. }) => (
            min_snapshots_to_keep
                .and_then(|min| usize::try_from(min).ok())
                .map_or(policy.snapshots_min, |min| min.max(1)),
            max_snapshot_age_ms.unwrap_or(policy.age_ms_max),
        ),
        _ => (policy.snapshots_min, policy.age_ms_max),
    }
}

/// About what a snapshot takes in the metadata file.
fn estimate(snapshot: &Snapshot) -> usize {
    let summary: usize =
        snapshot.summary().additional_properties.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    // Quotes of the ledger's JSON are escaped once more.
    let escaped: usize =
        snapshot.summary().additional_properties.values().map(|value| value.matches('"').count()).sum();
    320 + snapshot.manifest_list().len() + summary + escaped
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rhythm {
    Hourly,
    Daily,
}

impl Rhythm {
    fn prefix(self) -> &'static str {
        match self {
            Rhythm::Hourly => "hourly-",
            Rhythm::Daily => "daily-",
        }
    }

    fn name(self, timestamp_ms: i64) -> Option<String> {
        let time = DateTime::<Utc>::from_timestamp_millis(timestamp_ms)?;
        Some(match self {
            Rhythm::Hourly => time.format("hourly-%Y-%m-%dT%HZ").to_string(),
            Rhythm::Daily => time.format("daily-%Y-%m-%d").to_string(),
        })
    }

    fn span(self, policy: &Policy) -> i64 {
        match self {
            Rhythm::Hourly => TimeDelta::try_hours(policy.hourly_tags),
            Rhythm::Daily => TimeDelta::try_days(policy.daily_tags),
        }
        .map_or(i64::MAX, |span| span.num_milliseconds())
    }
}

/// Our tags while a commit decides on them.
struct Tags {
    /// Name → (rhythm, snapshot); only ours.
    ours: HashMap<String, (Rhythm, i64)>,
    spans: [i64; 2],
    updates: Vec<TableUpdate>,
}

impl Tags {
    fn new(refs: &Refs, policy: &Policy) -> Tags {
        let ours = refs.refs.iter().filter(|(_, reference)| !reference.is_branch()).filter_map(|(name, reference)| {
            let rhythm = [Rhythm::Hourly, Rhythm::Daily].into_iter().find(|rhythm| {
                name.strip_prefix(rhythm.prefix())
                    .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            })?;
            Some((name.clone(), (rhythm, reference.snapshot_id)))
        });
        Tags {
            ours: ours.collect(),
            spans: [Rhythm::Hourly.span(policy), Rhythm::Daily.span(policy)],
            updates: Vec::new(),
        }
    }

    fn is_ours(&self, name: &str) -> bool {
        self.ours.contains_key(name)
            || self
                .updates
                .iter()
                .any(|update| matches!(update, TableUpdate::RemoveSnapshotRef { ref_name } if ref_name == name))
    }

    fn holds(&self, snapshot: i64) -> bool {
        self.ours.values().any(|(_, id)| *id == snapshot)
    }

    /// The first commit of an hour or a day tags its parent.
    fn add(&mut self, parent: Option<&SnapshotRef>, new: &Snapshot, policy: &Policy) {
        let Some(parent) = parent else { return };
        for (rhythm, kept) in [(Rhythm::Hourly, policy.hourly_tags), (Rhythm::Daily, policy.daily_tags)] {
            let (Some(before), Some(after)) = (rhythm.name(parent.timestamp_ms()), rhythm.name(new.timestamp_ms()))
            else {
                continue;
            };
            if kept <= 0 || before == after || self.ours.contains_key(&before) {
                continue;
            }
            self.updates.push(TableUpdate::SetSnapshotRef {
                ref_name: before.clone(),
                reference: SnapshotReference::new(
                    parent.snapshot_id(),
                    SnapshotRetention::Tag { max_ref_age_ms: Some(rhythm.span(policy)) },
                ),
            });
            self.ours.insert(before, (rhythm, parent.snapshot_id()));
        }
    }

    fn expire(&mut self, metadata: &TableMetadata, now_ms: i64) {
        let spans = self.spans;
        let old: Vec<String> = self
            .ours
            .iter()
            .filter(|(_, (rhythm, id))| {
                let span = spans[usize::from(*rhythm == Rhythm::Daily)];
                metadata.snapshot_by_id(*id).is_none_or(|snapshot| now_ms - snapshot.timestamp_ms() >= span)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in old {
            self.remove(&name);
        }
    }

    /// Gives up the oldest hourly tag, or the oldest daily one if there is none; the snapshot it was of.
    fn drop_oldest(&mut self) -> Option<i64> {
        // The names of one rhythm sort by time.
        let name = self
            .ours
            .iter()
            .min_by_key(|(name, (rhythm, _))| (*rhythm, (*name).clone()))
            .map(|(name, _)| name.clone())?;
        self.remove(&name)
    }

    fn remove(&mut self, name: &str) -> Option<i64> {
        let (_, id) = self.ours.remove(name)?;
        let set_here = self
            .updates
            .iter()
            .position(|update| matches!(update, TableUpdate::SetSnapshotRef { ref_name, .. } if ref_name == name));
        match set_here {
            Some(position) => drop(self.updates.remove(position)),
            None => self.updates.push(TableUpdate::RemoveSnapshotRef { ref_name: name.to_owned() }),
        }
        Some(id)
    }
}

/// The manifest lists and manifests that only `removed` snapshots reached, after they were removed from `table`.
///
/// On main's line a manifest that was dropped never comes back: it is reached from a kept snapshot exactly if the next
/// kept descendant has it, or if a kept ancestor is not older than it. Snapshots off that line are read, a few at most.
/// Where anything is not sure, nothing is named: orphans are swept later, a wrong deletion cannot be undone.
pub async fn unreachable(table: &Table, removed: &[SnapshotRef]) -> Result<Vec<String>> {
    let metadata = table.metadata();
    let main = line(metadata, metadata.current_snapshot_id());
    let on_line: HashSet<i64> = main.iter().map(|snapshot| snapshot.snapshot_id()).collect();
    let Some(oldest) = main.last() else { return Ok(Vec::new()) };
    // Tagged snapshots are cut off from main's line once what lies between is gone, but are its ancestors all the same
    // if they are older than all of it; a younger one is a branch or a dead line.
    let (cut_off, aside): (Vec<&SnapshotRef>, Vec<&SnapshotRef>) = metadata
        .snapshots()
        .filter(|snapshot| !on_line.contains(&snapshot.snapshot_id()))
        .partition(|snapshot| snapshot.sequence_number() < oldest.sequence_number());
    if aside.len() > BRANCH_LISTS_MAX {
        return Ok(Vec::new());
    }
    let mut reached: HashSet<String> = HashSet::new();
    for snapshot in std::iter::once(oldest).chain(aside) {
        reached.extend(load_list(table, Some(snapshot.snapshot_id())).await?.into_iter().map(|m| m.manifest_path));
    }
    let newest_cut_off = cut_off.iter().map(|snapshot| snapshot.sequence_number()).max().unwrap_or(-1);

    // A removed snapshot that is not older than main's oldest was never on this line: what it shares with main may
    // have come after main's oldest. Only what such snapshots added themselves is surely theirs.
    let dead: HashSet<i64> = removed
        .iter()
        .filter(|snapshot| snapshot.sequence_number() >= oldest.sequence_number())
        .map(|snapshot| snapshot.snapshot_id())
        .collect();
    let mut files = Vec::new();
    for snapshot in removed {
        let Ok(list) = read_list(table, snapshot).await else { continue };
        let is_dead = dead.contains(&snapshot.snapshot_id());
        files.extend(
            list.into_iter()
                .filter(|manifest| manifest.sequence_number > newest_cut_off)
                .filter(|manifest| !is_dead || dead.contains(&manifest.added_snapshot_id))
                .map(|manifest| manifest.manifest_path)
                .filter(|path| !reached.contains(path)),
        );
        files.push(snapshot.manifest_list().to_owned());
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// The manifest list of a snapshot that the table no longer has.
async fn read_list(table: &Table, snapshot: &SnapshotRef) -> Result<Vec<ManifestFile>> {
    let list = table.manifest_list_reader(snapshot).load().await.map_err(|error| {
        Error::retry(format!("reading the manifest list {} failed", snapshot.manifest_list()))
            .caused_by(anyhow::anyhow!("{error}"))
    })?;
    Ok(list.consume_entries().into_iter().collect())
}
