# Sourced after test/lib.sh by test/clients/run and test/bench/run: node, and the
# libraries of test/clients/package.json in the copy of the checkout.
#
#   npm_there      are node (18 or newer) and npm there?
#   npm_need       install (as root) or name (otherwise) them
#   npm_install    into $work/src/test/clients/node_modules; after esync_workspace

npm_there()
{
	command -v node >/dev/null && command -v npm >/dev/null &&
		node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'
}

npm_need()
{
	local p missing=

	npm_there && return
	for p in node npm; do
		command -v $p >/dev/null || missing="$missing $p"
	done
	missing=${missing//node/nodejs}
	[ -n "$missing" ] || die "node $(node --version) is too old: 18 or newer is needed"
	[ "$(id -u)" = 0 ] || die "missing:$missing
Run this as root, or first: sudo apt-get install$missing"
	command -v apt-get >/dev/null || die "missing:$missing (and there is no apt-get)"
	apt-get update -qq >/dev/null || die "apt-get update failed"
	install_packages $missing || die "could not install$missing"
	npm_there || die "node 18 or newer and npm are not there even now"
}

# As the calling user, whose npm settings may name a registry; no script of a package is run.
npm_install()
{
	local log="$work/npm.log"

	(cd "$work/src/test/clients" && npm ci --ignore-scripts --no-audit --no-fund) >"$log" 2>&1 ||
		{ cat "$log" >&2; return 1; }
	[ "$(id -un)" = "$run_user" ] || chown -R "$run_user" "$work/src/test/clients/node_modules"
}
