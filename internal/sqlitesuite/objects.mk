# Beside SQLite's own Makefile: the sources of testfixture as objects, to be linked
# twice. The flags are those of its rule for testfixture.
OBJECTS_FLAGS = -DSQLITE_NO_SYNC=1 $(TEMP_STORE) $(TESTFIXTURE_FLAGS) -DSQLITE_EXTRA_INIT=sqlitesuite_init
object = $(OBJECTS)/$(notdir $(1:.c=.o))
define compile
$(call object,$1): $1
	$$(TCC) $$(OBJECTS_FLAGS) -c -o $$@ $$<
objects: $(call object,$1)
endef
$(foreach s,$(TESTFIXTURE_SRC),$(eval $(call compile,$s)))
