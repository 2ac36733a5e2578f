"""``CLAUDE_SIDECAR_ENGINE=s5cmd``: the bytes of whole objects are moved by that program.

s5cmd knows no condition: it cannot be told to write over exactly one version, nor to read exactly one. So it
carries what needs none, and everything else stays ours:

    down  a whole object of ``.claude/``: into a staged file, which counts only when the object's ETag
          proves which version it is; the home gets it from there, as it gets a native download
    up    an object that is new: from a staged copy, after a look of s5cmd's own (``cp -n``); afterwards
          the object is looked at for this write's mark
    ours  whatever replaces an object, listings, the journal, the manifest, packs, ``conflicts/``, deletions

What that leaves open: whoever creates the same new path between s5cmd's look and its write is overwritten.
"""
