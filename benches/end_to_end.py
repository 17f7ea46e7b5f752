"""The end-to-end benchmarks: benches/run.sh prepares what they need and starts them.

The stand-ins of both tenants run in a process of their own; the daemon and two baselines are measured against them over
real HTTP, one after the other, in alternating order. What each left in Auth0 is judged by the same oracle. Prints the
tables of docs/performance.md; the numbers also go to target/bench/result.json.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from datetime import datetime

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
CONCURRENCY = 4
SHARE = 0.8
EXTRA = """
[engine]
concurrency = {concurrency}
[guard]
max_denials = 1000000
[log]
filter = "warn"
[store]
path = "{state}"
"""


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class Sandbox:
    """Both tenants, in a process of their own."""

    def __init__(self, *arguments):
        command = [BINARY, "sandbox", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if "/_sandbox/" in line:
                break
        text = "".join(lines)
        self.config = text[: text.index("[store]")]
        self.okta, self.auth0 = (line.split('"')[1] for line in lines if line.startswith("url"))
        # What has just been created is not in the index of searches yet.
        time.sleep(1.5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.process.stdout.close()

    def ask(self, url, method="GET", body=None):
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method)) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def journal(self, remote):
        kept = self.ask(f"{remote}/_sandbox/journal")
        assert len(kept["requests"]) == kept["total"], "the journal forgot something: fewer people, please"
        return kept["requests"]

    def users(self, remote):
        return self.ask(f"{remote}/_sandbox/users")

    def write_config(self, folder, concurrency=CONCURRENCY, schedule=None, state="state.db"):
        path = pathlib.Path(folder) / "config.toml"
        path.write_text(self.config + EXTRA.format(concurrency=concurrency, state=state))
        if schedule:
            with path.open("a") as file:
                file.write(f'[schedule]\npoll = "{schedule}"\n')
        path.chmod(0o600)
        return path


def judge(sandbox):
    """Who should be marked, by what Okta says now, and who is; and what it took."""
    left, stays = set(), set()
    for user in sandbox.users(sandbox.okta):
        (left if user["status"] == "DEPROVISIONED" else stays).add(user["profile"]["email"].lower())
    expected = left - stays
    missed = wrong = 0
    for account in sandbox.users(sandbox.auth0):
        mark = account.get("app_metadata", {}).get("okta_sync", {})
        marked, due = mark.get("deactivated") == "true", account["email"].lower() in expected
        missed += due and not marked
        wrong += marked and not due
    okta, auth0 = sandbox.journal(sandbox.okta), sandbox.journal(sandbox.auth0)
    writes = [request["path"] for request in auth0 if request["method"] == "PATCH" and request["status"] == 200]
    return {
        "missed": missed, "wrong": wrong, "doubled": len(writes) - len(set(writes)), "writes": len(writes),
        "okta_calls": len(okta), "auth0_calls": len(auth0), "leavers": len(left),
        "refused": sum(request["status"] == 429 for request in okta + auth0),
    }


def measure(command, folder):
    """Runs a command: seconds on the wall and on the CPU, KiB at its peak."""
    with open(pathlib.Path(folder) / "output", "wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        # Asked while it runs: the kernel's own account of the peak begins with ours, before the command's.
        peak, done = 0, 0
        while not done:
            with contextlib.suppress(OSError, StopIteration):
                peak = max(peak, proc(process.pid, "VmHWM"))
            time.sleep(0.01)
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command}: {process.returncode}\n{(pathlib.Path(folder) / 'output').read_text()[-2000:]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_mib": peak / 1024}


def contend(who, arguments):
    """One contender does one pass over tenants of its own."""
    with Sandbox(*arguments) as sandbox, tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        config = sandbox.write_config(folder)
        state = os.path.join(folder, "state.baseline")
        command = {
            "daemon": [BINARY, "--config", str(config), "sync"],
            "tuned": [sys.executable, str(HERE / "baseline/tuned.py"), str(config), state],
            "sdk": [sys.executable, str(HERE / "baseline/sdk.py"), str(config), state],
        }[who]
        figures = measure(command, folder)
        figures |= judge(sandbox)
        if figures["missed"] or figures["wrong"]:
            print((pathlib.Path(folder) / "output").read_text()[-2000:], file=sys.stderr)
        calls = [moment(r["at"]) for r in sandbox.journal(sandbox.auth0) if r["path"].startswith("/api/v2/")]
        figures["auth0_times"] = calls
    return figures


def round_trip(sandbox):
    """Seconds from a request over a connection that is open to its answer, the median of some."""
    address = urllib.parse.urlsplit(sandbox.auth0)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    took = []
    for _ in range(100):
        began = time.monotonic()
        connection.request("GET", "/api/v2/users")
        connection.getresponse().read()
        took.append(time.monotonic() - began)
    connection.close()
    return statistics.median(took)


NAMES = {"daemon": "okta-auth0-sync", "tuned": "tuned (httpx, uvloop)", "sdk": "official SDKs"}


def side_by_side(title, arguments, orders, floor=None):
    runs = {}
    for order in orders:
        for who in order:
            print(f"… {title}: {who}", file=sys.stderr)
            runs.setdefault(who, []).append(contend(who, arguments))
    return title, summarised(runs, floor)


def summarised(runs, floor=None):
    rows = {}
    for who, several in runs.items():
        row = {key: statistics.median(run[key] for run in several) for key in several[0] if key != "auth0_times"}
        row["runs"] = len(several)
        row["floor"] = floor(row) if floor else None
        row["auth0_times"] = several[0]["auth0_times"]
        rows[who] = row
    return rows


def show(title, rows):
    print(f"\n{title}\n")
    print("| | wall | ratio | of the floor | CPU | peak | calls a person: Okta, Auth0 | 429s | missed, wrong, doubled |")
    print("|---|---|---|---|---|---|---|---|---|")
    ours = rows["daemon"]["wall"]
    for who, row in rows.items():
        people = max(row["leavers"], 1)
        floor = f"{row['floor'] / row['wall']:.0%}" if row["floor"] else "–"
        print(
            f"| {NAMES[who]} | {row['wall']:.1f} s | {row['wall'] / ours:.1f} | {floor} | {row['cpu']:.1f} s | "
            f"{row['peak_mib']:.0f} MiB | {row['okta_calls'] / people:.2f}, {row['auth0_calls'] / people:.2f} | "
            f"{row['refused']:.0f} | {row['missed']:.0f}, {row['wrong']:.0f}, {row['doubled']:.0f} |"
        )


def limited(leavers, burst, refill):
    """Under a rate limit nobody competes for the CPU: all three at once, each with tenants of its own."""
    title = f"{leavers:,} deactivations, Auth0 takes {refill} requests a second with a burst of {burst}"
    arguments = ["--people", leavers + 100, "--leavers", leavers, "--auth0-burst", burst, "--auth0-per-second", refill]
    runs = {}

    def run(who):
        runs[who] = [contend(who, arguments)]

    print(f"… {title}", file=sys.stderr)
    threads = [threading.Thread(target=run, args=(who,)) for who in ("daemon", "tuned", "sdk")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = summarised({who: runs[who] for who in ("daemon", "tuned", "sdk")}, None)
    times = rows["daemon"]["auth0_times"]
    settled = [at for at in times if at >= times[0] + 60]
    used = (len(settled) - 1) / (settled[-1] - settled[0]) / (SHARE * refill) if len(settled) > 1 else float("nan")
    return title, rows, used


@contextlib.contextmanager
def daemon(config, folder, **environment):
    with open(os.path.join(folder, "daemon.log"), "wb") as log:
        process = subprocess.Popen(
            [BINARY, "--config", str(config), "run"], stdout=log, stderr=log, cwd=folder, env=os.environ | environment
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def trickle(seconds):
    """A deactivation a second: from `published` to marked, less the wait for the next poll of the schedule.

    Under the limits of the smallest plans that allow so many: Okta's usual ones, and Auth0's 16 a second. Three calls each
    do not fit into the two a second of Auth0's free plan."""
    limits = ["--auth0-burst", 50, "--auth0-per-second", 16]
    with Sandbox("--people", seconds + 200, *limits) as sandbox, tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        print(f"… a deactivation a second for {seconds} s", file=sys.stderr)
        with daemon(sandbox.write_config(folder), folder):
            time.sleep(3)
            # Nobody of the few that share their address: they are not marked.
            people = [
                user for user in sandbox.users(sandbox.okta)
                if not user["profile"]["login"].startswith("second") and not user["profile"]["login"].endswith("60@example.com")
            ][:seconds]
            began = time.monotonic()
            for number, user in enumerate(people):
                time.sleep(max(0, began + number - time.monotonic()))
                sandbox.ask(f"{sandbox.okta}/_sandbox/users/{user['id']}/deactivate", "POST")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                time.sleep(2)
                if sum("app_metadata" in account for account in sandbox.users(sandbox.auth0)) >= len(people):
                    break
        polls = [moment(r["at"]) for r in sandbox.journal(sandbox.okta) if r["path"] == "/api/v1/logs"]
        written = {
            urllib.request.unquote(r["path"].rsplit("/", 1)[1]): moment(r["at"])
            for r in sandbox.journal(sandbox.auth0) if r["method"] == "PATCH"
        }
        marked = {
            account["email"].lower(): written[account["user_id"]]
            for account in sandbox.users(sandbox.auth0) if account["user_id"] in written
        }
        whole, own, missed = [], [], 0
        for event in sandbox.ask(f"{sandbox.okta}/_sandbox/events"):
            if event["eventType"] == "user.lifecycle.deactivate":
                published, at = moment(event["published"]), marked.get(event["target"][0]["alternateId"].lower())
                if at is None:
                    missed += 1
                    continue
                asked = min(poll for poll in polls if poll >= published)
                whole.append(at - published)
                own.append(at - asked)
    return {
        "people": len(people), "missed": missed, "p50": percentile(whole, 0.5), "p99": percentile(whole, 0.99),
        "own_p50": percentile(own, 0.5), "own_p99": percentile(own, 0.99),
    }


def proc(pid, name):
    with open(f"/proc/{pid}/status") as file:
        return int(next(line for line in file if line.startswith(name)).split()[1])


def switches(pid):
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as file:
            total += int(next(line for line in file if line.startswith("voluntary_ctxt")).split()[1])
    return total


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(seconds):
    """Two daemons with nothing to do: one that polls each second, as a day in short, and one by the default schedule."""
    print(f"… idle for {seconds} s", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox("--people", 1000, "--unlimited"))
        folders = [stack.enter_context(tempfile.TemporaryDirectory(dir=SCRATCH)) for _ in range(2)]
        busy = stack.enter_context(daemon(sandbox.write_config(folders[0], schedule="* * * * * *"), folders[0]))
        calm = stack.enter_context(daemon(sandbox.write_config(folders[1]), folders[1]))
        time.sleep(5)
        before, cpu = switches(calm.pid), cpu_seconds(calm.pid)
        time.sleep(seconds)
        after = switches(calm.pid)
        return {
            "seconds": seconds, "rss_mib": proc(busy.pid, "VmRSS") / 1024, "wakeups_per_s": (after - before) / seconds,
            "cpu_ms_per_s": (cpu_seconds(calm.pid) - cpu) * 1000 / seconds,
        }


def ready(config, folder):
    """Milliseconds from the start of the process to READY=1."""
    path = os.path.join(folder, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(60)
        began = time.monotonic()
        with daemon(config, folder, NOTIFY_SOCKET=path):
            while b"READY=1" not in listener.recv(4096):
                pass
            took = time.monotonic() - began
            time.sleep(1)
    os.unlink(path)
    return took * 1000


def catch_up(events, people):
    """The daemon starts with so many events of the log before it; then what its size costs."""
    print(f"… {events:,} events of {people:,} people to catch up with", file=sys.stderr)
    arguments = ["--people", people, "--history", events, "--unlimited"]
    with Sandbox(*arguments) as sandbox, tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        config = sandbox.write_config(folder)
        with daemon(config, folder) as process:
            began, taken, state = time.monotonic(), None, os.path.join(folder, "state.db")
            peak_taken = 0
            while True:
                time.sleep(1)
                if process.poll() is not None:
                    sys.exit(pathlib.Path(folder, "daemon.log").read_text()[-2000:])
                answer = subprocess.run([BINARY, "--config", str(config), "status", "--json"], capture_output=True, cwd=folder)
                if answer.returncode or not os.path.exists(state):
                    continue
                pending = json.loads(answer.stdout)["pending"]
                if taken is None:
                    asked = subprocess.run(
                        ["sqlite3", "-readonly", state, "SELECT count(*) FROM events"], capture_output=True, text=True
                    ).stdout.strip()
                    if asked.isdigit() and int(asked) >= events:
                        taken, peak_taken = time.monotonic() - began, proc(process.pid, "VmHWM") / 1024
                elif pending == 0:
                    break
            done, peak = time.monotonic() - began, proc(process.pid, "VmHWM") / 1024
        starts = sorted(ready(config, folder) for _ in range(5))
        statuses = []
        for _ in range(20):
            at = time.monotonic()
            subprocess.run([BINARY, "--config", str(config), "status"], capture_output=True, cwd=folder)
            statuses.append((time.monotonic() - at) * 1000)
        size = os.path.getsize(state) / 2**20
    return {
        "events": events, "people": people, "taken_s": taken, "done_s": done, "peak_taken_mib": peak_taken,
        "peak_mib": peak, "ready_ms": statistics.median(starts), "status_ms": statistics.median(statuses), "state_mib": size,
    }


def denials_after(history):
    """What 1,000 denials cost behind so much history."""
    with Sandbox("--people", 3000, "--leavers", 0, "--history", history, "--unlimited") as sandbox:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
            print(f"… 1,000 denials behind {history:,} events", file=sys.stderr)
            config = sandbox.write_config(folder)
            measure([BINARY, "--config", str(config), "sync"], folder)
            for remote in (sandbox.okta, sandbox.auth0):
                sandbox.ask(f"{remote}/_sandbox/journal", "DELETE")
            plain = [u for u in sandbox.users(sandbox.okta) if not u["profile"]["login"].startswith("second")]
            for user in plain[:1000]:
                sandbox.ask(f"{sandbox.okta}/_sandbox/users/{user['id']}/deactivate", "POST")
            figures = measure([BINARY, "--config", str(config), "sync"], folder)
    return figures | {"history": history}


def main():
    sys.stdout.reconfigure(line_buffering=True)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=str(ROOT / "target/release/okta-auth0-sync"))
    parser.add_argument("--leavers", type=int, default=10_000, help="deactivations without limits")
    parser.add_argument("--trickle", type=int, default=120, help="seconds of one deactivation a second")
    parser.add_argument("--idle", type=int, default=60, help="seconds of doing nothing")
    parser.add_argument("--events", type=int, default=1_000_000, help="events to catch up with")
    parser.add_argument("--people", type=int, default=20_000, help="people whom those are about")
    parser.add_argument("--only", default="", help="some of: burst, latency, limit, trickle, idle, size, history")
    global BINARY, SCRATCH
    options = parser.parse_args()
    BINARY = os.path.abspath(options.binary)
    SCRATCH = ROOT / "target/bench"
    SCRATCH.mkdir(parents=True, exist_ok=True)
    wanted = set(filter(None, options.only.split(","))) or {"burst", "latency", "limit", "trickle", "idle", "size", "history"}
    result = {}

    print(f"{datetime.now():%Y-%m-%d}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the beginning")
    if "burst" in wanted:
        arguments = ["--people", options.leavers + 500, "--leavers", options.leavers, "--unlimited"]
        title = f"{options.leavers:,} deactivations, no limits, no latency"
        orders = [("daemon", "tuned", "sdk"), ("tuned", "daemon"), ("daemon", "tuned")]
        title, rows = side_by_side(title, arguments, orders)
        show(title, rows)
        result["burst"] = rows
    if "latency" in wanted:
        leavers, latency = 400, 0.020
        with Sandbox("--unlimited", "--latency", "20ms") as sandbox:
            trip = round_trip(sandbox)
        arguments = ["--people", leavers + 100, "--leavers", leavers, "--unlimited", "--latency", "20ms"]

        def floor(row):
            return (row["okta_calls"] + row["auth0_calls"]) * latency / CONCURRENCY

        title = f"{leavers} deactivations, each answer takes 20 ms, {CONCURRENCY} people at a time"
        title, rows = side_by_side(title, arguments, [("daemon", "tuned", "sdk"), ("tuned", "daemon")], floor)
        rows["sdk"]["floor"] *= CONCURRENCY
        show(title, rows)
        print(f"\nA round trip to that stand-in takes {trip * 1000:.1f} ms, so that of the floor for this latency:", end=" ")
        print(", ".join(f"{NAMES[who]} {row['floor'] * trip / latency / row['wall']:.0%}" for who, row in rows.items()))
        result["latency"] = rows | {"round_trip_ms": trip * 1000}
    if "limit" in wanted:
        title, rows, used = limited(700, 50, 16)
        show(title, rows)
        print(f"\nAfter the first minute the daemon used {used:.1%} of its share ({SHARE:.0%} of the limit).")
        result["limit"] = rows | {"used": used}
    if "trickle" in wanted:
        figures = trickle(options.trickle)
        print(
            f"\nA deactivation a second for {options.trickle} s: {figures['people']} people, {figures['missed']} missed; from "
            f"published to marked p50 {figures['p50']:.2f} s, p99 {figures['p99']:.2f} s; without the wait for the next poll "
            f"p50 {figures['own_p50']:.3f} s, p99 {figures['own_p99']:.3f} s."
        )
        result["trickle"] = figures
    if "idle" in wanted:
        figures = idle(options.idle)
        print(
            f"\nIdle for {options.idle} s: {figures['rss_mib']:.1f} MiB resident with a poll each second; by the default schedule "
            f"{figures['wakeups_per_s']:.1f} switches of a thread and {figures['cpu_ms_per_s']:.2f} ms of CPU a second."
        )
        result["idle"] = figures
    if "size" in wanted:
        figures = catch_up(options.events, options.people)
        print(
            f"\n{options.events:,} events of {options.people:,} people: taken in after {figures['taken_s']:.0f} s, everybody looked "
            f"at after {figures['done_s']:.0f} s; at most {figures['peak_taken_mib']:.1f} MiB resident until then, "
            f"{figures['peak_mib']:.1f} MiB in all. With that state ({figures['state_mib']:.0f} MiB): READY after "
            f"{figures['ready_ms']:.0f} ms, `status` in {figures['status_ms']:.0f} ms."
        )
        result["size"] = figures
    if "history" in wanted:
        print("\n| events of history | 1,000 denials: wall | CPU | peak |\n|---|---|---|---|")
        several = []
        for history in (0, 100_000, options.events):
            figures = denials_after(history)
            several.append(figures)
            print(f"| {figures['history']:,} | {figures['wall']:.2f} s | {figures['cpu']:.2f} s | {figures['peak_mib']:.1f} MiB |")
        result["history"] = several
    with open(SCRATCH / "result.json", "w") as file:
        for rows in result.values():
            if isinstance(rows, dict):
                for row in rows.values():
                    if isinstance(row, dict):
                        row.pop("auth0_times", None)
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
