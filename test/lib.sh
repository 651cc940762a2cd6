# Sourced by test/run, demo/run and .ci/run: finds or installs what is needed,
# builds esync in a copy of the checkout below $work, and prepares everything a
# throw-away server needs.  Neither the checkout nor the system's PostgreSQL is
# written to, and $work is removed at exit.
#
#   esync_need [tests]   install (as root) or name (otherwise) missing packages; "tests" also
#                        installs, as root, what some tests do without
#   esync_workspace      make $work, copy the checkout to $work/src
#   esync_build          make; esync_install: into $work/dest, and $work/pg.conf
#   esync_as CMD...      run CMD in $work/src as the user that runs servers
#
# After esync_need: PG_CONFIG, bindir.  After esync_workspace: work, run_user.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=
keep_work=
run_user=$(id -un)
CC=${CC:-gcc}
export LC_ALL=C.UTF-8 TZ=UTC
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGOPTIONS PGDATA PGSERVICE PGTZ
unset MAKEFLAGS MAKELEVEL MFLAGS PGCLIENTENCODING PGDATESTYLE

say()
{
	printf '%s\n' "$*"
}

die()
{
	printf '%s: %s\n' "$0" "$*" >&2
	exit 1
}

# Is $1 the pg_config of a server against which one can build and which one can start?
usable_pg_config()
{
	[ -x "$1" ] && [ -f "$("$1" --pgxs 2>/dev/null)" ] && [ -x "$("$1" --bindir)/initdb" ] &&
		[ -f "$("$1" --includedir-server)/postgres.h" ]		# pgxs.mk alone is in Debian's client package
}

# Sets PG_CONFIG to the one given, the one in PATH, or Debian's newest; fails if none is usable.
find_pg_config()
{
	local c

	if [ -n "${PG_CONFIG:-}" ]; then
		case $PG_CONFIG in */*) ;; *) PG_CONFIG=$(command -v "$PG_CONFIG") ;; esac
		usable_pg_config "$PG_CONFIG"
		return
	fi
	for c in $(command -v pg_config) $(ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null | sort -rV); do
		if usable_pg_config "$c"; then
			PG_CONFIG=$c
			return
		fi
	done
	return 1
}

# The major version that packages should have: that of PG_CONFIG's path, else Debian's own.
wanted_major()
{
	case ${PG_CONFIG:-} in
		/usr/lib/postgresql/*/bin/pg_config)
			say "$PG_CONFIG" | cut -d / -f 5 ;;
		*)
			apt-cache show postgresql 2>/dev/null |
				sed -n 's/^Depends:.*postgresql-\([0-9][0-9]*\).*/\1/p' | head -n 1 ;;
	esac
}

# Prints the Debian packages that are missing; "tests" adds what the TAP tests need.
missing_packages()
{
	local major

	command -v make >/dev/null || say make
	command -v "$CC" >/dev/null || say "$CC"
	[ -f /usr/include/stdio.h ] || say libc6-dev
	if [ "${1:-}" = tests ] && ! perl -MIPC::Run -MTest::More -e 1 2>/dev/null; then
		say libipc-run-perl
	fi
	if ! find_pg_config; then
		case ${PG_CONFIG:-} in
			''|/usr/lib/postgresql/*/bin/pg_config) ;;
			*) die "PG_CONFIG=$PG_CONFIG is not the pg_config of a server with its headers" ;;
		esac
		major=$(wanted_major)
		say "postgresql-${major:-15}"
		say "postgresql-server-dev-${major:-15}"
	fi
}

# Prints the packages of which a test makes use where they are there: those that apt-get knows.
optional_packages()
{
	local package

	package=postgresql-$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')-wal2json
	[ -e "$("$PG_CONFIG" --pkglibdir)/wal2json.so" ] && return
	case $PG_CONFIG in
		/usr/lib/postgresql/*|/usr/bin/pg_config) ;;
		*) return ;;		# packages are not made for that server
	esac
	[ "$(id -u)" = 0 ] && [ -n "$(apt-cache show "$package" 2>/dev/null)" ] && say "$package"
}

# apt-get install, without the "main" cluster that postgresql-common would create and start.
install_packages()
{
	local conf=/etc/postgresql-common/createcluster.conf
	local saved='' log rc

	say "installing: $*"
	if [ -f $conf ]; then
		saved=$(mktemp)
		cp -p $conf "$saved"
	fi
	mkdir -p ${conf%/*}
	say 'create_main_cluster = false' >> $conf
	log=$(mktemp)
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		-o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1
	rc=$?
	[ "$rc" = 0 ] || cat "$log"
	rm -f "$log"
	if [ -n "$saved" ]; then
		mv "$saved" $conf
	elif [ -f $conf.ucf-dist ]; then
		mv $conf.ucf-dist $conf
	else
		rm -f $conf
	fi
	return $rc
}

# Makes sure of compiler, server, headers and test modules.
esync_need()
{
	local packages

	find_pg_config
	packages=$(missing_packages "$@") || exit 1
	if [ -n "$packages" ]; then
		packages=$(say $packages)
		[ "$(id -u)" = 0 ] || die "missing: $packages
Run this as root, or first: sudo apt-get install $packages"
		command -v apt-get >/dev/null || die "missing: $packages (and there is no apt-get)"
		apt-get update -qq >/dev/null || die "apt-get update failed"
		packages=$(say $(missing_packages "$@"))
		install_packages $packages || die "could not install $packages"
		packages=$(missing_packages "$@") || exit 1
		[ -z "$packages" ] || die "still missing: $(say $packages)"
	fi
	find_pg_config
	bindir=$("$PG_CONFIG" --bindir)
	if [ "${1:-}" = tests ]; then
		packages=$(optional_packages)
		[ -z "$packages" ] || install_packages $packages || say "going on without $packages"
	fi
}

# At exit: stop whatever server still runs below $work, and remove it.
clean_up()
{
	local pid

	[ -n "$work" ] && [ -z "$keep_work" ] || return 0
	for pid in $(find "$work" -name postmaster.pid -exec head -n 1 {} \; 2>/dev/null); do
		kill -INT "$pid" 2>/dev/null
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.3
		done
	done
	rm -rf "$work"
}

# A copy of the checkout in $work/src, without what was built there, owned by run_user.
# $work is short and in /tmp: a socket's path may have 107 bytes, and run_user must get there.
esync_workspace()
{
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	work=$(mktemp -d /tmp/esync.XXXXXX) || die "cannot write to /tmp"
	chmod 755 "$work"
	mkdir "$work/src" "$work/s" "$work/tmp"
	tar -C "$top" -c --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' \
		--exclude=./results --exclude=./output_iso --exclude=./tmp_check --exclude=./tmp_check_iso \
		--exclude=node_modules . | tar -C "$work/src" -x --no-same-owner
	if [ "$(id -u)" = 0 ]; then
		# initdb refuses root
		run_user=postgres
		getent passwd $run_user >/dev/null || run_user=nobody
		chown -R $run_user "$work"
	fi
}

# Runs a command as run_user in the copy, with its traces below $work.
esync_as()
{
	local as=()

	[ "$(id -un)" = "$run_user" ] || as=(runuser -u "$run_user" --)
	(cd "$work/src" && "${as[@]}" env HOME="$work" TMPDIR="$work/tmp" PG_CONFIG="$PG_CONFIG" "$@")
}

# Compiles in the copy.  CC chooses the compiler; WERROR=1 makes every warning an error.
esync_build()
{
	local flags=(CC="$CC" with_llvm=no)

	if [ -n "${WERROR:-}" ]; then
		local profile="-Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare"

		# clang does not know all that a server built by gcc asks for
		case $CC in *clang*)
			profile="$profile -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes" ;;
		esac
		flags+=(PROFILE="$profile")
	fi
	esync_as make -s clean "${flags[@]}" >/dev/null &&
		esync_as make -s -j"$(nproc)" "${flags[@]}"
}

# Installs into $work/dest and writes $work/pg.conf, which lets a server find it there.
esync_install()
{
	local major
	local dest="$work/dest"

	major=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	{
		say "fsync = off"
		say "listen_addresses = ''"
		if [ "$major" -ge 18 ]; then
			say "extension_control_path = '$dest$("$PG_CONFIG" --sharedir):\$system'"
			say "dynamic_library_path = '$dest$("$PG_CONFIG" --pkglibdir):\$libdir'"
		elif grep -q extension_destdir "$bindir/postgres"; then
			# a setting of Debian's and Ubuntu's packages
			say "extension_destdir = '$dest'"
		else
			dest=
			say "installing esync into $("$PG_CONFIG" --pkglibdir): this server reads extensions from nowhere else" >&2
		fi
	} > "$work/pg.conf"
	chmod 644 "$work/pg.conf"
	if [ -n "$dest" ]; then
		esync_as make -s install CC="$CC" with_llvm=no DESTDIR="$dest" >/dev/null
	else
		(cd "$work/src" && make -s install PG_CONFIG="$PG_CONFIG" CC="$CC" with_llvm=no >/dev/null)
	fi
}
