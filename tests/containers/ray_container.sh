# Runs the start script of AWS's Ray Serve image in a root of its own, as in a container:
# BASE is /opt/ml, APP is /app, and /tmp is new. Everything ends with it (unshare --kill-child).
set -e
root="$BASE/root"
mkdir -p "$root"
mount --make-rprivate /
mount -t tmpfs root "$root"
for each in /*; do
    case "$each" in
    /app | /opt | /proc | /tmp) ;;
    *)
        if [ -L "$each" ]; then
            cp -P "$each" "$root$each"
        elif [ -d "$each" ]; then
            mkdir "$root$each"
            mount --rbind "$each" "$root$each"
        fi
        ;;
    esac
done
mkdir -p "$root$HOME" "$root/proc" "$root/opt/ml" "$root/app" "$root/tmp" "$BASE/tmp"
mount -t proc proc "$root/proc"
mount --bind "$BASE" "$root/opt/ml"
mount --bind "$APP" "$root/app"
mount --bind "$BASE/tmp" "$root/tmp"
mkdir -p "$root$VENV"
mount --bind "$VENV" "$root$VENV"
exec chroot "$root" bash /app/sagemaker_entrypoint.sh serve
