"""Where traces come from: found (location), downloaded (fetch), read (traces) or made up (synthetic)."""
