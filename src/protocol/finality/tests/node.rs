//! A node with the rules of finality alone: entries of one store, root entries, a base, and the view
//! that follows from them. It computes everything anew, so the order in which entries came is of no
//! effect but through the rules.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    rc::Rc,
};

use crate::{
    id::{Author, EntryId, Seq, StoreId},
    protocol::{
        chain::Tip,
        entry::Parent,
        finality::{Arrival, Chains, Collections, Fate, Finality},
        frontier::{Frontier, FrontierTip},
        heads::{Content, Head, Heads, Value},
        hlc::Hlc,
        membership::{Members, Standing, acts::Acts},
        placed_act::PlacedAct,
    },
};

pub(super) const ROOT: StoreId = StoreId([1; 16]);
pub(super) const STORE: StoreId = StoreId([2; 16]);
pub(super) const CREATOR: Author = Author([b'A'; 32]);

/// An entry of the store: a put or a delete of one key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) author: Author,
    pub(super) at: FrontierTip,
    pub(super) prev: Option<FrontierTip>,
    pub(super) hlc: u64,
    pub(super) parents: Vec<Parent>,
    pub(super) key: u8,
    pub(super) is_put: bool,
}

/// An entry of the root store.
#[derive(Debug)]
pub(super) struct RootItem {
    pub(super) acts: Acts,
    pub(super) prev: Option<FrontierTip>,
    pub(super) anchors: Option<PlacedAct>,
}

/// The state as of the anchors `tips`, in place of the entries below them.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    pub(super) tips: Frontier,
    pub(super) rows: BTreeMap<u8, BTreeSet<(Parent, bool)>>,
    // References by entries below the anchors to others above them, and the key that they supersede.
    pub(super) pairs: BTreeSet<(Parent, u8)>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) root: BTreeMap<EntryId, Rc<RootItem>>,
    pub(super) data: BTreeMap<EntryId, Rc<Item>>,
    pub(super) base: Base,
    pub(super) waiting: BTreeMap<EntryId, Rc<Item>>,
    // False on a node that never collects tombstones: what a person would expect to read.
    pub(super) collects: bool,
    // False once entries have waited long for parents: they are applied without.
    pub(super) waits: bool,
    // `None` since the last change, until somebody asks.
    view: RefCell<Option<Rc<View>>>,
}

/// Everything that follows from a set of entries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) members: Members,
    pub(super) acts: Vec<PlacedAct>,
    pub(super) finality: Finality,
    pub(super) counts: BTreeSet<EntryId>,
    pub(super) void: BTreeSet<EntryId>,
    pub(super) applied: BTreeSet<EntryId>,
    pub(super) rows: BTreeMap<u8, BTreeSet<(Parent, bool)>>,
    pub(super) gone: BTreeSet<EntryId>,
}

impl Item {
    pub(super) fn as_parent(&self) -> Parent {
        Parent {
            hlc: stamp(self.hlc),
            author: self.author,
            id: self.at.id,
            seq: self.at.seq,
        }
    }
}

pub(super) fn stamp(wall_ms: u64) -> Hlc {
    Hlc {
        wall_ms,
        counter: 0,
    }
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            root: BTreeMap::new(),
            data: BTreeMap::new(),
            base: Base::default(),
            waiting: BTreeMap::new(),
            collects: true,
            waits: true,
            view: RefCell::default(),
        }
    }

    pub(super) fn receive_root(&mut self, items: impl IntoIterator<Item = Rc<RootItem>>) {
        let items = items.into_iter().map(|item| (item.acts.place.id, item));
        self.root.extend(items);
        self.changed();
        self.take_in();
    }

    pub(super) fn receive(&mut self, item: &Rc<Item>) {
        self.receive_all([Rc::clone(item)]);
    }

    pub(super) fn receive_all(&mut self, items: impl IntoIterator<Item = Rc<Item>>) {
        let items = items.into_iter().map(|item| (item.at.id, item));
        self.waiting.extend(items);
        self.take_in();
    }

    pub(super) fn changed(&mut self) {
        *self.view.get_mut() = None;
    }

    // Takes in what waits, as far as it can be.
    fn take_in(&mut self) {
        let mut finality = None;
        loop {
            let mut waiting: Vec<_> = self.waiting.values().cloned().collect();
            waiting.sort_by_key(|item| item.at);
            let mut moved = false;
            for item in waiting {
                let now = finality.get_or_insert_with(|| self.finality(&self.members()).1);
                let Ok(arrival) = now.arrival(&item.author, item.at, item.prev, self);
                let is_here = |place: &FrontierTip| self.is_here(&item.author, *place);
                let follows = item.prev.as_ref().is_none_or(is_here);
                match arrival {
                    Arrival::Settled => {}
                    _any if is_here(&item.at) => {}
                    Arrival::Void => {}
                    Arrival::Usual if !follows => continue,
                    Arrival::Usual => {
                        self.data.insert(item.at.id, Rc::clone(&item));
                        if now.may_be_final(&item.author, item.at.seq) {
                            finality = None;
                        }
                    }
                }
                self.waiting.remove(&item.at.id);
                self.changed();
                moved = true;
            }
            if !moved {
                break;
            }
        }
    }

    fn is_here(&self, author: &Author, place: FrontierTip) -> bool {
        self.data.contains_key(&place.id) || self.base.tips.tips(author).contains(&place)
    }

    // The entry before `item`, unless it was taken in without that.
    fn prev(&self, item: &Item) -> Option<FrontierTip> {
        let is_here = |prev: &FrontierTip| self.is_here(&item.author, *prev);
        item.prev.filter(is_here)
    }

    pub(super) fn view(&self) -> Rc<View> {
        if let Some(view) = &*self.view.borrow() {
            return Rc::clone(view);
        }
        let view = Rc::new(self.compute());
        *self.view.borrow_mut() = Some(Rc::clone(&view));
        view
    }

    fn members(&self) -> Members {
        let acts = self.root.values().map(|item| &item.acts);
        let leads = |_: &_, entry, tip| self.root_leads(entry, tip);
        let Ok(members) = Members::evaluate(CREATOR, ROOT, acts, leads);
        members
    }

    // The anchors acts that count, and what they make final.
    fn finality(&self, members: &Members) -> (Vec<PlacedAct>, Finality) {
        let authorized = |item: &&Rc<RootItem>| members.authorized().contains(&item.acts.place.id);
        let counting = self.root.values().filter(authorized);
        let acts: Vec<PlacedAct> = counting.filter_map(|item| item.anchors.clone()).collect();
        let named = acts.iter().map(|placed| &placed.act);
        let Ok(finality) = Finality::join(named, &self.base.tips, self);
        (acts, finality)
    }

    fn compute(&self) -> View {
        let members = self.members();
        let (acts, finality) = self.finality(&members);
        let (mut counts, mut void) = (BTreeSet::new(), BTreeSet::new());
        // Entries that are not final: they wait for their parents.
        let mut asking = BTreeSet::new();
        for item in self.data.values() {
            let standing = members.standing(&STORE, &item.author);
            let (author, prev) = (item.author, self.prev(item));
            let Ok(fate) = finality.fate(&author, item.at, prev, self);
            if fate == Fate::Void {
                void.insert(item.at.id);
            }
            if fate.asks_parents() {
                asking.insert(item.at.id);
            }
            let Ok(does_count) = finality.counts(&standing, &author, item.at, prev, self);
            if does_count {
                counts.insert(item.at.id);
            }
        }
        let mut view = View {
            members,
            acts,
            finality,
            counts,
            void,
            applied: BTreeSet::new(),
            rows: BTreeMap::new(),
            gone: BTreeSet::new(),
        };
        let ids = self.data.keys().filter(|id| !asking.contains(*id));
        let mut ready: BTreeMap<EntryId, bool> = ids.map(|id| (*id, true)).collect();
        for item in self.data.values() {
            if view.counts.contains(&item.at.id) && self.is_ready(item, &view, &mut ready) {
                view.applied.insert(item.at.id);
            }
        }
        view.rows = self.rows(&view.applied);
        view.gone = self.collect(&mut view.rows, &view.acts, &view.finality);
        view
    }

    // Whether all parents of an entry that counts are present.
    fn is_ready(&self, item: &Item, view: &View, known: &mut BTreeMap<EntryId, bool>) -> bool {
        if let Some(known) = known.get(&item.at.id) {
            return *known;
        }
        known.insert(item.at.id, true);
        let mut is_ready = true;
        for parent in &item.parents {
            is_ready &= match self.data.get(&parent.id) {
                _any if view.finality.is_present(parent) => true,
                Some(there) => {
                    there.as_parent() == *parent
                        && (!view.counts.contains(&parent.id) || self.is_ready(there, view, known))
                }
                None => !self.waits || self.never_comes(parent, view),
            };
        }
        if let Some(prev) = item.prev.and_then(|prev| self.data.get(&prev.id)) {
            is_ready &= !view.counts.contains(&prev.at.id) || self.is_ready(prev, view, known);
        }
        known.insert(item.at.id, is_ready);
        is_ready
    }

    // Whether a parent that is not here is below the base, or cut off by a removal.
    fn never_comes(&self, parent: &Parent, view: &View) -> bool {
        let place = FrontierTip {
            seq: parent.seq,
            id: parent.id,
        };
        if self.base.tips.seq(&parent.author) >= parent.seq {
            return true;
        }
        match view.members.standing(&STORE, &parent.author) {
            Standing::Through(kept) => {
                let Ok(is_kept) = kept.covers(&parent.author, place, |author, entry, tip| {
                    view.finality.keeps(author, entry, tip, self)
                });
                !is_kept
            }
            _other => false,
        }
    }

    // The heads that follow from the base and from the entries `ids`.
    pub(super) fn rows(&self, ids: &BTreeSet<EntryId>) -> BTreeMap<u8, BTreeSet<(Parent, bool)>> {
        let items = || ids.iter().map(|id| &self.data[id]);
        let cites = |item: &Rc<Item>| {
            let key = item.key;
            let parents = item.parents.clone().into_iter();
            parents.map(move |parent| (parent, key))
        };
        let mut cited: BTreeSet<(Parent, u8)> = items().flat_map(cites).collect();
        cited.extend(&self.base.pairs);
        let mut rows = self.base.rows.clone();
        for item in items() {
            let row = rows.entry(item.key).or_default();
            row.insert((item.as_parent(), item.is_put));
        }
        for (key, row) in &mut rows {
            row.retain(|(head, _)| !cited.contains(&(*head, *key)));
        }
        rows.retain(|_, row| !row.is_empty());
        rows
    }

    /// Everything here that `anchors` lead back to.
    pub(super) fn below(&self, anchors: &Frontier) -> BTreeSet<EntryId> {
        let mut below = BTreeSet::new();
        for (_, anchor) in anchors.iter() {
            let mut next = self.data.get(&anchor.id);
            while let Some(item) = next.filter(|item| below.insert(item.at.id)) {
                next = item.prev.and_then(|prev| self.data.get(&prev.id));
            }
        }
        below
    }

    // Takes the heads that acts collect. Returns them.
    fn collect(
        &self,
        rows: &mut BTreeMap<u8, BTreeSet<(Parent, bool)>>,
        acts: &[PlacedAct],
        finality: &Finality,
    ) -> BTreeSet<EntryId> {
        let mut gone = BTreeSet::new();
        if !self.collects {
            return gone;
        }
        let Ok(collections) = Collections::join(acts, |later, _collection| {
            let mut anchors = later.act.anchors().iter();
            Ok::<_, Infallible>(anchors.all(|(author, tip)| !finality.is_awaited(&author, tip)))
        });
        for row in rows.values_mut() {
            let heads = Heads::new(row.iter().map(head).collect());
            if let Some(left) = collections.take_from(&heads) {
                let left: BTreeSet<EntryId> = left.as_slice().iter().map(|it| it.id).collect();
                let taken = row.iter().map(|(head, _)| head.id);
                gone.extend(taken.filter(|id| !left.contains(id)));
                row.retain(|(head, _)| left.contains(&head.id));
            }
        }
        rows.retain(|_, row| !row.is_empty());
        gone
    }

    /// Computes the base of all anchors and removes the entries below them. Returns false when one is
    /// not here.
    pub(super) fn fold(&mut self) -> bool {
        let view = self.view();
        let tips = view.finality.last();
        let ids = self.below(&tips);
        let is_joined = |id: &EntryId| {
            let item = &self.data[id];
            let Some(prev) = item.prev else {
                return true;
            };
            self.is_here(&item.author, prev)
        };
        if view.finality.awaited().next().is_some() || ids.is_empty() || !ids.iter().all(is_joined)
        {
            return false;
        }
        let mut rows = self.rows(&ids);
        self.collect(&mut rows, &view.acts, &view.finality);
        let mut pairs = self.base.pairs.clone();
        for item in ids.iter().map(|id| &self.data[id]) {
            for parent in &item.parents {
                let is_below =
                    ids.contains(&parent.id) && self.data[&parent.id].as_parent() == *parent;
                if !is_below {
                    pairs.insert((*parent, item.key));
                }
            }
        }
        self.base = Base { tips, rows, pairs };
        self.data.retain(|id, _| !ids.contains(id));
        self.changed();
        self.take_in();
        true
    }

    fn root_leads(&self, entry: FrontierTip, tip: FrontierTip) -> Result<Option<bool>, Infallible> {
        let mut at = Some(tip);
        while let Some(place) = at.filter(|place| place.seq > entry.seq) {
            let Some(item) = self.root.get(&place.id) else {
                return Ok(None);
            };
            at = item.prev;
        }
        Ok(Some(at == Some(entry)))
    }
}

fn head((at, is_put): &(Parent, bool)) -> Head {
    Head {
        hlc: at.hlc,
        author: at.author,
        id: at.id,
        seq: at.seq,
        content: if *is_put {
            Content::Value {
                value: Value::Inline(bytes::Bytes::new()),
                expires_ms: None,
            }
        } else {
            Content::Tombstone
        },
        taken_back: false,
    }
}

impl Chains for Node {
    type Error = Infallible;

    fn is_joined(&self, author: &Author, place: FrontierTip) -> Result<bool, Infallible> {
        let base = self.base.tips.tips(author);
        let mut at = place;
        while let Some(item) = self.data.get(&at.id) {
            match item.prev {
                Some(prev) => at = prev,
                None => return Ok(true),
            }
        }
        Ok(base.contains(&at))
    }

    fn has(&self, author: &Author, place: FrontierTip) -> Result<bool, Infallible> {
        Ok(self.is_here(author, place))
    }

    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Infallible> {
        let base = self.base.tips.tips(author);
        if !self.data.contains_key(&tip.id) && !base.contains(&tip) {
            return Ok(None);
        }
        let mut at = tip;
        while at.seq > entry.seq {
            let Some(item) = self.data.get(&at.id) else {
                // The anchor of the base. Places decide about what is not here.
                return Ok(Some(base.contains(&at) && !self.is_here(author, entry)));
            };
            match item.prev {
                Some(prev) => at = prev,
                None => return Ok(Some(false)),
            }
        }
        Ok(Some(at == entry))
    }

    fn meet(
        &self,
        author: &Author,
        one: FrontierTip,
        other: FrontierTip,
    ) -> Result<Option<FrontierTip>, Infallible> {
        let mut at = one;
        loop {
            let leads = self.leads(author, at, other)?;
            if leads != Some(false) {
                return Ok(leads.map(|_is| at));
            }
            match self.data.get(&at.id).and_then(|item| item.prev) {
                Some(prev) => at = prev,
                None => return Ok(None),
            }
        }
    }

    fn at(&self, _author: &Author, tip: FrontierTip, seq: Seq) -> Result<Option<Tip>, Infallible> {
        let mut next = self.data.get(&tip.id);
        while let Some(item) = next.filter(|item| item.at.seq > seq) {
            next = item.prev.and_then(|prev| self.data.get(&prev.id));
        }
        Ok(next.map(|item| Tip {
            seq: item.at.seq,
            id: item.at.id,
            hlc: stamp(item.hlc),
        }))
    }
}

/// The root store of a node, as the watermark sees it.
pub(super) struct RootChains<'a>(pub(super) &'a Node);

impl Chains for RootChains<'_> {
    type Error = Infallible;

    fn is_joined(&self, author: &Author, place: FrontierTip) -> Result<bool, Infallible> {
        self.has(author, place)
    }

    fn has(&self, _author: &Author, place: FrontierTip) -> Result<bool, Infallible> {
        Ok(self.0.root.contains_key(&place.id))
    }

    fn leads(
        &self,
        _author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, Infallible> {
        if !self.0.root.contains_key(&tip.id) {
            return Ok(None);
        }
        self.0.root_leads(entry, tip)
    }

    fn meet(
        &self,
        _author: &Author,
        _one: FrontierTip,
        _other: FrontierTip,
    ) -> Result<Option<FrontierTip>, Infallible> {
        unreachable!("only places in the root store are asked for")
    }

    fn at(
        &self,
        _author: &Author,
        _tip: FrontierTip,
        _seq: Seq,
    ) -> Result<Option<Tip>, Infallible> {
        unreachable!("only places in the root store are asked for")
    }
}
