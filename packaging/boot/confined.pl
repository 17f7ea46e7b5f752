#!/usr/bin/perl
# What a process may do where this runs. One line each: `refused NAME (why)` or `allowed NAME` for what the units claim to
# keep from the service, and `works NAME` or `broken NAME (why)` for what the service needs.
#
#   confined.pl claims        everything that the units claim to refuse
#   confined.pl needs         what the daemon needs
#   confined.pl memory BYTES  takes more memory than a unit may have; says `allowed` if it got it
#
# The system calls are those of x86-64. Each attempt is made by a process of its own.
use strict;
use warnings;
use Socket;

my %call = (
    mmap => 9, mprotect => 10, ptrace => 101, syslog => 103, personality => 135, setpriority => 141,
    sched_setscheduler => 144, setrlimit => 160, chroot => 161, mount => 165, swapon => 167, sethostname => 170,
    init_module => 175, sched_setaffinity => 203, clock_settime => 227, kexec_load => 246, unshare => 272,
    perf_event_open => 298, bpf => 321,
);

# Ends the attempt: done if the system call answered anything but an error.
sub called {
    my ($name, @arguments) = @_;
    return syscall($call{$name}, @arguments) != -1;
}
# As `called`, for calls that nobody could let succeed here: reached is what is refused for its arguments alone.
sub reached {
    return 1 if called(@_);
    return !$!{EPERM} && !$!{ENOSYS};
}
sub written {
    my $done = open my $file, '>>', $_[0];
    return $done && close $file;
}
sub readable {
    open(my $file, '<', $_[0]) or return 0;
    return defined sysread $file, my $some, 1;
}
sub family { return socket(my $socket, $_[0], $_[1], 0) }
sub said { my $text = qx(@_ 2>&1); chomp $text; return $text }
sub status { open(my $file, '<', '/proc/self/status') or return ''; my ($line) = grep { /^$_[0]:/ } <$file>; return $line // '' }
sub mounted_writable {
    my ($place) = @_;
    open(my $file, '<', '/proc/self/mountinfo') or return 0;
    # The last one that lies there is the one that counts.
    my @there = map { (split)[5] } grep { (split)[4] eq $place } <$file>;
    return @there && $there[-1] =~ /(^|,)rw(,|$)/;
}

my %claims = (
    'ProtectSystem: write to /usr' => sub { written('/usr/boot-open') },
    'ProtectSystem: write to /etc' => sub { written('/etc/boot-open') },
    'ProtectSystem: write to /opt' => sub { written('/opt/boot-open') },
    'ProtectSystem: write to /var/lib' => sub { written('/var/lib/boot-open') },
    'ProtectSystem: a new file in an open folder' => sub { written("/opt/boot-folder/$$") },
    'ProtectHome: read /home' => sub { readable('/home/visitor/open') },
    'ProtectHome: read /root' => sub { readable('/root/boot-open') },
    'DynamicUser: read what is another user\'s' => sub { readable('/opt/boot-private') },
    'DynamicUser: read the credentials at their source' => sub { readable('/etc/okta-auth0-sync/credentials/okta-api-token') },
    'PrivateTmp: see /tmp of others' => sub { -e '/tmp/boot-open' },
    'PrivateTmp: see /var/tmp of others' => sub { -e '/var/tmp/boot-open' },
    'PrivateDevices: open a device in /dev' => sub { readable('/dev/boot-open') },
    'DevicePolicy: open a device elsewhere' => sub { readable('/opt/boot-device') },
    'PrivateUsers: who owns the files of others' => sub { (stat '/opt/boot-private')[4] != 65534 },
    'PrivateIPC: the machine\'s IPC' => sub { readlink('/proc/self/ns/ipc') eq $ENV{HOST_IPC} },
    'ProtectHostname: the machine\'s names' => sub { readlink('/proc/self/ns/uts') eq $ENV{HOST_UTS} },
    'ProtectHostname: change the name' => sub { my $name = said('cat', '/etc/hostname'); called('sethostname', $name, length $name) },
    'ProtectClock: set the clock' => sub { called('clock_settime', 0, pack('qq', time, 0)) },
    'ProtectKernelLogs: read the kernel\'s log' => sub { called('syslog', 3, my $text = ' ' x 4096, 4096) },
    'ProtectKernelLogs: /dev/kmsg' => sub { -e '/dev/kmsg' },
    'ProtectKernelModules: load a module' => sub { reached('init_module', my $module = "\0" x 64, 64, my $options = "\0") },
    'ProtectKernelModules: see the modules' => sub { my @some = glob('/usr/lib/modules/*'); @some > 0 },
    'ProtectKernelTunables: /sys can be written' => sub { mounted_writable('/sys') },
    'ProtectControlGroups: /sys/fs/cgroup can be written' => sub { mounted_writable('/sys/fs/cgroup') },
    'ProtectProc: see the first process' => sub { -e '/proc/1' },
    'ProtectProc: see a process of another user' => sub { -e "/proc/$ENV{OTHER_PROCESS}" },
    'ProcSubset: /proc/meminfo' => sub { -e '/proc/meminfo' },
    'ProcSubset: /proc/sys' => sub { -e '/proc/sys/kernel' },
    'LockPersonality: another personality' => sub { called('personality', 8) },
    'MemoryDenyWriteExecute: map memory to write and execute' => sub { called('mmap', 0, 4096, 7, 0x22, -1, 0) },
    'MemoryDenyWriteExecute: make memory executable' => sub {
        my $memory = syscall($call{mmap}, 0, 4096, 3, 0x22, -1, 0);
        $memory != -1 && called('mprotect', $memory, 4096, 5);
    },
    'RestrictNamespaces: users' => sub { called('unshare', 0x10000000) },
    'RestrictNamespaces: mounts' => sub { called('unshare', 0x10000000 | 0x20000) },
    'RestrictNamespaces: network' => sub { called('unshare', 0x10000000 | 0x40000000) },
    'RestrictRealtime: run in real time' => sub { called('sched_setscheduler', 0, 1, pack('i', 1)) },
    'RestrictSUIDSGID: make a setuid file' => sub { my $file = "$ENV{PLACE}/setuid.$$"; written($file) && chmod(04755, $file) && unlink($file) },
    'NoNewPrivileges: become root by a setuid program' => sub { said('/opt/boot-setuid', '-u') eq '0' },
    'SystemCallArchitectures: a program of 32 bits' => sub { system('/opt/boot-32'); $? >> 8 == 42 },
    'RestrictAddressFamilies: netlink' => sub { family(16, SOCK_RAW) },
    'RestrictAddressFamilies: packets' => sub { family(17, SOCK_RAW) },
    'RestrictAddressFamilies: the kernel\'s cryptography' => sub { family(38, SOCK_SEQPACKET) },
    'SystemCallFilter: mount' => sub { called('mount', 'none', '/opt/boot-folder', 'tmpfs', 0, 0) },
    'SystemCallFilter: chroot' => sub { called('chroot', '/') },
    'SystemCallFilter: swapon' => sub { reached('swapon', '/boot-nothing', 0) },
    'SystemCallFilter: kexec_load' => sub { reached('kexec_load', 0, 17, 0, 0) },
    'SystemCallFilter: bpf' => sub { reached('bpf', 0, 0, 0) },
    'SystemCallFilter: perf_event_open' => sub { reached('perf_event_open', 0, 0, -1, -1, 0) },
    'SystemCallFilter: ptrace' => sub { called('ptrace', 0, 0, 0, 0) },
    'SystemCallFilter: another priority' => sub { called('setpriority', 0, 0, 5) },
    'SystemCallFilter: other processors' => sub { called('sched_setaffinity', 0, 8, pack('Q', 1)) },
    'SystemCallFilter: other limits' => sub { called('setrlimit', 4, pack('QQ', 0, 0)) },
    'CapabilityBoundingSet: any capability at all' => sub { status('CapBnd') !~ /\t0+$/ },
    'AmbientCapabilities, effective: any' => sub { status('CapEff') !~ /\t0+$/ },
    'LimitCORE: dump core' => sub { said('sh -c "ulimit -H -c"') ne '0' },
    'LimitNOFILE: 5000 open files' => sub { my @open; for (1 .. 5000) { open(my $file, '<', '/dev/null') or return 0; push @open, $file } 1 },
    'TasksMax: 100 processes' => sub {
        my @children;
        for (1 .. 100) {
            my $child = fork;
            last if !defined $child;
            if (!$child) { sleep 60; exit }
            push @children, $child;
        }
        kill 'KILL', @children;
        waitpid($_, 0) for @children;
        return @children == 100;
    },
);
# Where the network is none of its business.
my %offline = (
    'RestrictAddressFamilies: internet' => sub { family(AF_INET, SOCK_STREAM) },
    'PrivateNetwork: the machine\'s network' => sub { readlink('/proc/self/ns/net') eq $ENV{HOST_NET} },
);
my %needs = (
    'to write its state' => sub { written("$ENV{PLACE}/works") && unlink("$ENV{PLACE}/works") },
    'files of its own to be its own' => sub {
        my $file = "$ENV{PLACE}/works";
        written($file) && ((stat $file)[2] & 0777) == 0600 && unlink($file);
    },
    'to write /tmp' => sub { written("/tmp/works.$$") },
    'to trust certificates' => sub { readable('/etc/ssl/certs/ca-certificates.crt') },
    'to read its configuration' => sub { readable('/etc/okta-auth0-sync/config.toml') },
    'sockets on the machine' => sub { family(AF_UNIX, SOCK_STREAM) },
);
my %online = (
    'to write its runtime directory' => sub { written("$ENV{RUNTIME_DIRECTORY}/works") && unlink("$ENV{RUNTIME_DIRECTORY}/works") },
    'its credentials' => sub { readable("$ENV{CREDENTIALS_DIRECTORY}/okta-api-token") },
    'the internet' => sub { family(AF_INET, SOCK_STREAM) && family(AF_INET6, SOCK_STREAM) },
    'names to be resolved' => sub { gethostbyname('localhost') },
);

sub attempt {
    my ($yes, $no, $name, $act) = @_;
    my $child = fork // die "fork: $!";
    if (!$child) {
        $! = 0;
        my $done = $act->();
        printf "%s %s\n", $done ? $yes : $no, $done ? $name : $! ? "$name ($!)" : $name;
        exit;
    }
    waitpid $child, 0;
    printf "%s %s (killed by signal %d)\n", $no, $name, $? & 127 if $? & 127;
}

$| = 1;
$ENV{PLACE} //= $ENV{STATE_DIRECTORY} // die 'PLACE: where to write';
my ($what, $kind) = (@ARGV, '', '');
if ($what eq 'claims') {
    %claims = (%claims, %offline) if $kind eq 'offline';
    attempt('allowed', 'refused', $_, $claims{$_}) for sort keys %claims;
} elsif ($what eq 'needs') {
    %needs = (%needs, %online) if $kind ne 'offline';
    attempt('works', 'broken', $_, $needs{$_}) for sort keys %needs;
} elsif ($what eq 'memory') {
    # From outside, lest it be taken when this is compiled.
    my $much = 'm' x $kind;
    printf "allowed %d bytes\n", length $much;
} else {
    die "confined.pl claims|needs|memory BYTES\n";
}
