//! A network of network namespaces: one for each node, all on one switch, with cables that can be
//! pulled.

use std::{
    io::{BufRead, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Its nodes end with the network.
#[derive(Debug)]
pub(super) struct Lan {
    // The shell that has the switch; it ends, and all with it, when its stdin does.
    switch: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    // Processes that do nothing but keep a namespace.
    keepers: Vec<String>,
}

impl Lan {
    /// Makes a network for so many nodes. Needs no privileges where users may make namespaces.
    ///
    /// # Errors The reason why there is no network here.
    pub(super) fn new(nodes: usize) -> Result<Self, String> {
        let mut switch = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", SCRIPT])
            .args(["sh", &nodes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let orders = switch.stdin.take();
        let answers = BufReader::new(switch.stdout.take().unwrap());
        let mut lan = Self {
            switch,
            orders,
            answers,
            keepers: Vec::new(),
        };
        for _node in 0..nodes {
            match lan.answer() {
                Some(keeper) => lan.keepers.push(keeper),
                None => return Err(lan.complaint()),
            }
        }
        Ok(lan)
    }

    /// Returns the words before a command that run it where a node lives.
    pub(super) fn inside(&self, node: usize) -> Vec<String> {
        let words = ["nsenter", "--user", "--net", "--preserve-credentials"];
        let target = ["--target", &self.keepers[node], "--"];
        words.into_iter().chain(target).map(str::to_owned).collect()
    }

    /// Returns where a node is found.
    pub(super) fn address(node: usize) -> String {
        format!("10.77.0.{}:4077", node + 1)
    }

    /// Pulls the cable of a node: nothing gets in or out.
    pub(super) fn pull(&mut self, node: usize) {
        self.set(node, "down");
    }

    /// Puts it back.
    pub(super) fn plug(&mut self, node: usize) {
        self.set(node, "up");
    }

    fn set(&mut self, node: usize, state: &str) {
        let order = format!("cable{} {state}", node + 1);
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(self.answer().as_ref(), Some(&order), "{}", self.complaint());
    }

    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.answers.read_line(&mut line).unwrap_or(0);
        (count > 0).then(|| line.trim_end().to_owned())
    }

    fn complaint(&mut self) -> String {
        let stderr = self.switch.stderr.take().map(BufReader::new);
        let lines = stderr.into_iter().flat_map(BufRead::lines);
        // Not waited for more than there is: where it lives, it says nothing.
        lines.map_while(Result::ok).next().unwrap_or_default()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        drop(self.orders.take());
        drop(self.switch.wait());
    }
}

const SCRIPT: &str = r#"
trap 'kill $keepers 2>/dev/null' EXIT
ip link add switch type bridge && ip link set switch up || exit 1
for node in $(seq "$1"); do
    unshare --net sleep 3600 </dev/null >/dev/null &
    keeper=$!
    keepers="$keepers $keeper"
    times=0
    while [ "$(readlink /proc/$keeper/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do
        times=$((times + 1))
        [ $times -lt 3000 ] || exit 1
        sleep 0.01
    done
    ip link add cable$node type veth peer name eth0 netns $keeper || exit 1
    ip link set cable$node master switch up || exit 1
    nsenter --target $keeper --net sh -c "
        ip link set lo up && ip link set eth0 up && ip addr add 10.77.0.$node/24 dev eth0" || exit 1
    echo $keeper
done
while read -r cable state; do
    ip link set "$cable" "$state" && echo "$cable $state" || exit 1
done
"#;
