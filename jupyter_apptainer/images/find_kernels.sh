# Runs inside an image, with no more than a shell and cp: copies every kernelspec that the image has to a folder of the host.
# Beside each: `folder`, its path in the image, and `python`, the Python of the same environment, where there is one.
# Usage: sh find_kernels.sh FOLDER
out=$1
number=0
seen=:

# look FOLDER: every FOLDER/NAME/kernel.json
look() {
    for file in "$1"/*/kernel.json; do
        [ -f "$file" ] && [ -r "$file" ] || continue
        folder=${file%/kernel.json}
        case $seen in *":$folder:"*) continue ;; esac
        seen=$seen$folder:
        number=$((number + 1))
        mkdir "$out/$number" || exit 1
        for part in "$file" "$folder"/logo-*.png "$folder"/logo-*.svg; do
            [ ! -f "$part" ] || cp "$part" "$out/$number/" || exit 1
        done
        printf '%s' "$folder" >"$out/$number/folder"
        python=${folder%/share/jupyter/kernels/*}/bin/python
        [ ! -x "$python" ] || printf '%s' "$python" >"$out/$number/python"
    done
}

# The environments of the programs in PATH, through their links: /opt/venv/bin/python is that of /opt/venv.
IFS=:
for folder in $JUPYTER_PATH; do
    look "$folder/kernels"
done
for folder in $PATH; do
    look "${folder%/*}/share/jupyter/kernels"
    for program in python3 python conda R julia jupyter; do
        [ -L "$folder/$program" ] || continue
        target=$(readlink -f "$folder/$program" 2>/dev/null) || continue
        target=${target%/*}
        look "${target%/*}/share/jupyter/kernels"
    done
done
unset IFS
for folder in /usr/local/share /usr/share /opt/share /opt/*/share /opt/*/*/share /opt/*/envs/*/share /opt/*/*/envs/*/share \
    /usr/local/*/share /usr/local/*/envs/*/share /srv/*/share /app/.venv/share /*/.venv/share \
    "$CONDA_PREFIX/share" "$CONDA_PREFIX"/envs/*/share /root/.local/share /home/*/.local/share; do
    look "$folder/jupyter/kernels"
done
# IRkernel that nobody has registered brings its kernelspec along.
for folder in /usr/lib/R/*library /usr/local/lib/R/*library /usr/lib64/R/library /usr/share/R/library /opt/*/lib/R/library \
    /opt/*/envs/*/lib/R/library; do
    look "$folder/IRkernel"
done
exit 0
