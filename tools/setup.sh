# What ./run and ./test share: packages, build, kernel, initramfs. Sourced by bash with $top set.
#
# Everything made goes to build*/ (ignored by git) and to the cache, ~/.cache/kvasir unless
# KVASIR_CACHE says otherwise.

cache=${KVASIR_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/kvasir}

say() { printf '%s\n' "kvasir: $*" >&2; }
die() { say "$*"; exit 1; }

# Run a command as root: as we are, or through sudo without asking for a password in a pipe.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

can_be_root() {
	[ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }
}

# need_packages NAME...: install those that are missing, or list them and stop.
need_packages() {
	local p missing=()

	command -v dpkg-query >/dev/null || {
		say "this is no Debian or Ubuntu; I trust that these are there: $*"
		return 0
	}
	for p; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if ! can_be_root; then
		say "these packages are missing, and I can install them neither as root nor with sudo:"
		printf '  apt-get install %s\n' "${missing[*]}" >&2
		exit 1
	fi
	say "installing ${missing[*]}"
	if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
			"${missing[@]}" >/dev/null 2>&1; then
		as_root apt-get update >/dev/null || die "apt-get update failed"
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
			"${missing[@]}" >/dev/null || die "cannot install ${missing[*]}"
	fi
}

build_packages=(gcc libc6-dev make meson ninja-build pkg-config python3 libcmocka-dev busybox-static
	liburing-dev libslirp-dev zlib1g-dev libzstd-dev)
test_packages=(clang llvm libclang-rt-dev binutils python3-pexpect qemu-system-x86 qemu-utils)

# What makes a disk image of Debian (tools/mkimage). Not in build_packages: ./run boots without them.
image_packages=(mmdebstrap qemu-utils e2fsprogs zstd)

# build_in DIR [MESON OPTION...]: configure once and build; the log is shown when it fails.
build_in() {
	local dir=$1 log

	shift
	log=$dir.log
	if [ ! -f "$dir/build.ninja" ]; then
		meson setup "$dir" "$top" "$@" >"$log" 2>&1 || { cat "$log" >&2; die "meson setup failed"; }
	fi
	ninja -C "$dir" >"$log" 2>&1 || { tail -50 "$log" >&2; die "the build failed, see $log"; }
}

# get_kernel cloud|generic|PATH: sets $kernel to a kernel file, from the cache or the distribution.
get_kernel() {
	local meta pkg tmp

	case $1 in
	cloud) meta=linux-image-cloud-amd64 ;;
	generic) meta=linux-image-amd64 ;;
	*)
		[ -r "$1" ] || die "--kernel $1: no such file (cloud, generic or a path)"
		kernel=$1
		return
		;;
	esac
	if grep -qs '^ID=ubuntu' /etc/os-release; then
		case $1 in cloud) meta=linux-image-virtual ;; *) meta=linux-image-generic ;; esac
	fi
	kernel=$(newest "$cache/$meta"/vmlinuz-*)
	[ -z "$kernel" ] || return 0
	command -v apt-get >/dev/null || die "no apt-get to fetch $meta with; give --kernel PATH"
	pkg=$(concrete_package "$meta")
	if [ -z "$pkg" ] && can_be_root; then
		as_root apt-get update >/dev/null
		pkg=$(concrete_package "$meta")
	fi
	[ -n "$pkg" ] || die "the package lists do not know $meta; try apt-get update, or --kernel PATH"
	say "fetching $pkg"
	mkdir -p "$cache/$meta"
	tmp=$(mktemp -d "$cache/fetch.XXXXXX")
	fetch_package "$tmp" "$pkg" './boot/vmlinuz-*'
	mv "$tmp"/boot/vmlinuz-* "$cache/$meta/"
	chmod a+r "$cache/$meta"/vmlinuz-*
	rm -rf "$tmp"
	kernel=$(newest "$cache/$meta"/vmlinuz-*)
}

# fetch_package DIR PACKAGE PATTERN...: those files of the package, below DIR.
fetch_package() {
	local dir=$1 pkg=$2

	shift 2
	# _apt cannot write to a private directory; root is fine here, nothing of it is executed.
	(cd "$dir" && apt-get -o APT::Sandbox::User=root download "$pkg" >/dev/null 2>fetch.log) ||
		{ cat "$dir/fetch.log" >&2; rm -rf "$dir"; die "cannot fetch $pkg"; }
	dpkg-deb --fsys-tarfile "$dir"/*.deb | tar -x -C "$dir" --wildcards "$@" ||
		{ rm -rf "$dir"; die "$pkg does not hold $*"; }
}

# get_modules: sets $modules to a folder with the drivers of the kernel package that get_kernel's
# $kernel is from.
get_modules() {
	local ver=${kernel##*/vmlinuz-} dir=${kernel%/*} tmp pkg

	modules=$dir/modules-$ver
	[ ! -d "$modules" ] || return 0
	[ "${dir%/*}" = "$cache" ] || die "$kernel is not from a package: there are no modules"
	pkg=linux-image-$ver
	grep -qs '^ID=ubuntu' /etc/os-release && pkg=linux-modules-$ver
	say "fetching $pkg"
	tmp=$(mktemp -d "$cache/fetch.XXXXXX")
	# what is large and of no use in a virtual machine stays out
	fetch_package "$tmp" "$pkg" './lib/modules/*' --exclude='*/sound/*' --exclude='*/gpu/*' \
		--exclude='*/media/*' --exclude='*/drivers/net/*/*' --exclude='*/staging/*' \
		--exclude='*/iio/*' --exclude='*/infiniband/*'
	mv -T "$tmp/lib/modules" "$modules" || [ -d "$modules" ]
	rm -rf "$tmp"
}

# For the network card that a machine has by default, on both boards.
net_drivers="virtio_mmio virtio_pci virtio_net"

# add_modules NAME...: these drivers of $kernel into $initramfs.
add_modules() {
	local with

	get_modules
	with=$top/build/initramfs-${kernel##*/vmlinuz-}-$(printf '%s+' "$@").cpio
	if [ "$with" -nt "$initramfs" ] && [ "$with" -nt "$top/tools/mkinitramfs" ]; then
		initramfs=$with
		return 0
	fi
	"$top/tools/mkinitramfs" modules "$with.$$" "$modules" "$@" || die "cannot add modules"
	cat "$initramfs" "$with.$$" >"$with.$$.all"
	rm "$with.$$"
	mv "$with.$$.all" "$with"
	initramfs=$with
}

# The newest of some files; nothing when the pattern matched none.
newest() {
	local f best=

	for f; do
		if [ -f "$f" ] && { [ -z "$best" ] || [ "$f" -nt "$best" ]; }; then
			best=$f
		fi
	done
	printf '%s' "$best"
}

# The package with the kernel that a meta package stands for.
concrete_package() {
	{ apt-cache depends --no-recommends --no-suggests "$1" 2>/dev/null || true; } |
		sed -n '/^ *Depends: linux-image-[0-9]/ { s/^ *Depends: //p; q; }'
}

# get_initramfs: sets $initramfs to the small system that boots to a shell.
get_initramfs() {
	initramfs=$top/build/initramfs.cpio
	if [ ! -f "$initramfs" ] || [ "$top/tools/mkinitramfs" -nt "$initramfs" ]; then
		"$top/tools/mkinitramfs" base "$initramfs" || die "cannot make the initramfs"
	fi
}

# get_image base|bench [fresh]: sets $image to a folder with disk.qcow2, vmlinuz, initrd.img and
# append, and $overlay to a disk over that one, which keeps what the guest writes. The image that was
# made first is kept, also when the recipe has changed since; fresh takes today's recipe and an empty
# overlay.
get_image() {
	local now=$cache/images/$1

	if [ "${2:-}" = fresh ] || [ ! -f "$now/disk.qcow2" ]; then
		need_packages "${image_packages[@]}"
		image=$("$top/tools/mkimage" --flavour "$1" "$cache/images") || exit 1
		[ "${2:-}" != fresh ] || rm -f "$now/machine.qcow2" "$image/machine.qcow2"
		ln -sfn "${image##*/}" "$now"
	fi
	image=$(readlink -f "$now")
	overlay=$image/machine.qcow2
	[ -f "$overlay" ] || qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 "$overlay" || exit 1
}

# apt_private DIR COMMAND...: apt-get with this system's sources, source packages with them, but with
# its own lists and with no package installed, so that a download takes in all dependencies.
apt_private() {
	local dir=$1 f

	shift
	if [ ! -d "$dir/lists" ]; then
		rm -rf "$dir/etc"
		mkdir -p "$dir/etc/sources.list.d" "$dir/archives/partial"
		touch "$dir/etc/sources.list" "$dir/status"
		for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
			case $f in
			*.sources) sed 's/^Types:.*/Types: deb deb-src/' "$f" >"$dir/etc/sources.list.d/${f##*/}" ;;
			*.list) [ ! -f "$f" ] || sed -n 's/^deb /&/p; s/^deb /deb-src /p' "$f" >>"$dir/etc/sources.list" ;;
			esac
		done
		mkdir -p "$dir/lists.new/partial"
		apt-get "${apt_options[@]/#/-o}" "-oDir::State::lists=$dir/lists.new" \
			$(apt_dirs "$dir") update >"$dir/log" 2>&1 || return 1
		mv "$dir/lists.new" "$dir/lists"
	fi
	apt-get "${apt_options[@]/#/-o}" "-oDir::State::lists=$dir/lists" $(apt_dirs "$dir") "$@" \
		>"$dir/log" 2>&1
}

# _apt cannot write to a private directory; root is fine here, nothing of it is executed.
apt_options=(APT::Sandbox::User=root Debug::NoLocking=1)
apt_dirs() {
	printf -- '-o%s\n' "Dir::Etc::sourcelist=$1/etc/sources.list" "Dir::Cache=$1" \
		"Dir::Etc::sourceparts=$1/etc/sources.list.d" "Dir::Cache::archives=$1/archives" \
		"Dir::State::status=$1/status"
}

# fetch_tree DIR PACKAGE...: a file system of packages and all they depend on in DIR/root, without
# running anything of them. Status 1 when they cannot be had; DIR/log says why.
fetch_tree() {
	local dir=$1 deb d

	shift
	[ ! -d "$dir/root" ] || return 0
	command -v apt-get >/dev/null || { mkdir -p "$dir"; echo "no apt-get" >"$dir/log"; return 1; }
	mkdir -p "$dir"
	apt_private "$dir" -y --no-install-recommends --download-only install "$@" || return 1
	rm -rf "$dir/root.new"
	mkdir -p "$dir"/root.new/{usr/bin,usr/sbin,usr/lib,usr/lib64,dev,proc,sys,tmp,etc}
	for d in bin sbin lib lib64; do
		ln -s "usr/$d" "$dir/root.new/$d"
	done
	for deb in "$dir"/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" |
			tar -x -C "$dir/root.new" --keep-directory-symlink --no-same-owner 2>>"$dir/log" || return 1
	done
	mv "$dir/root.new" "$dir/root"
}

# fetch_source DIR NAME: the upstream source of a package, unpacked, in DIR/source/NAME.
fetch_source() {
	local dir=$1 name=$2 tar

	[ ! -d "$dir/source/$name" ] || return 0
	mkdir -p "$dir/source.tar/$name"
	(cd "$dir/source.tar/$name" && apt_private "$dir" source --download-only "$name") || return 1
	tar=$(newest "$dir/source.tar/$name"/*.orig.tar.*)
	[ -n "$tar" ] || { echo "$name: no upstream source" >"$dir/log"; return 1; }
	rm -rf "$dir/source/$name.new"
	mkdir -p "$dir/source/$name.new"
	tar -xf "$tar" -C "$dir/source/$name.new" --no-same-owner 2>>"$dir/log" || return 1
	# most tar files hold one folder, some the files themselves
	set -- "$dir/source/$name.new"/*
	[ $# = 1 ] || set -- "$dir/source/$name.new"
	mv "$1" "$dir/source/$name"
	rm -rf "$dir/source/$name.new"
}
