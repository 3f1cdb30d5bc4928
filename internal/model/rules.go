package main

// rule is one of the protocol's that can be left out.
type rule uint64

const (
	takeBeforePin rule = 1 << iota // B1
	takeKeeps                      // B1, B2
	peekDirty                      // B1
	peekAll                        // B1
	recheckSalt                    // B1
	clearLast                      // B2
	voidSums                       // B3
	voidSize                       // B3
	voidAbove                      // B3
	syncBefore                     // B3
	allBefore                      // B4
	markZeroFile                   // B5
	seenLast                       // M1
	stampTells                     // M2
	ownHoldOnly                    // M3
	frameStands                    // M4
	smallestSize                   // M5
	everySize                      // M5
	stampOfBoot                    // M2
	lockOne                        // L2
	epochCheck                     // L2
	bootCounts                     // L3
	nonceKept                      // S1
	noteFirst                      // S1
	createOnly                     // S1
	lookAtOpen                     // S2
	renewProof                     // S3
	windowAfter                    // T1
	durableLast                    // T1
	unknownCounts                  // L3
)

// rules are all of them, by the names that the protocol gives them. in is the small
// configuration in which the search finds what goes wrong without the rule; where none
// is, it finds nothing within the bounds: others carry what it carries.
var rules = []struct {
	rule     rule
	in, text string
}{
	{takeBeforePin, "sizes", "B1 dirty bits move in flight before the pin, not after it"},
	{takeKeeps, "puts", "B2 a bit is in flight before it stops being dirty, not in memory only"},
	{peekDirty, "puts", "B1 the dirty bits are looked at again after the pin"},
	{peekAll, "marks", "B1 all is looked at again after the pin"},
	{recheckSalt, "foreign", "B1 the live salt is looked at again after the tail was read"},
	{clearLast, "puts", "B2 in-flight bits are cleared after the object is in and recorded"},
	{voidSums, "puts", "B3 the sums of an object's pages are unknown before it is put"},
	{voidAbove, "sizes", "B3 the sums above an object's size are unknown before it is put"},
	{syncBefore, "power", "B3 the ledger is synced before an object is put"},
	{allBefore, "closes", "B4 all_done becomes the value that all had before the look"},
	{markZeroFile, "foreign", "B5 with read mark 0 pages come from the database file only"},
	{seenLast, "marks", "M1 seen is written after the bits"},
	{stampTells, "closes", "M2 where there is no WAL, only the stamp proves that the file is known"},
	{stampOfBoot, "stamps", "M2 a last close stamps only in the ledger's own boot"},
	{ownHoldOnly, "foreign", "M3 a new salt is followed only within one hold of the write lock"},
	{frameStands, "lost", "M4 frames are followed only where seen's last frame stands, whatever iChange says"},
	{smallestSize, "recovery", "M5 pages above the smallest size since the last batch are candidates"},
	{everySize, "recovery", "M5 of the frames that are followed every commit's size counts"},
	{lockOne, "locks", "L2 one shipper at a time"},
	{epochCheck, "locks", "L2 a shipper that finds another's epoch records nothing"},
	{bootCounts, "power", "L3 after another boot every page is a candidate"},
	{unknownCounts, "stamps", "L3 an entry that is unknown at an election makes every page a candidate"},
	{nonceKept, "puts", "S1 an object with a nonce of the list is an attempt of ours"},
	{noteFirst, "puts", "S1 an attempt is noted before it is made"},
	{createOnly, "puts", "S1 an object is created only where none is"},
	{lookAtOpen, "machines", "S2 a term begins with a look at what is newer"},
	{renewProof, "machines", "S3 a PUT is believed only with a young proof"},
	{windowAfter, "power", "T1 a token's window is loaded after the commit is marked"},
	{durableLast, "puts", "T1 durable moves when the object is in"},
	{voidSize, "", "B3 the size is unknown before an object is put"},
}

// budget bounds how often a thing may happen.
type budget int

const (
	commits  budget = iota // transactions of the marker
	unmarked               // transactions of a program without walferry
	resizes                // of either that change the size
	resets                 // restarts of the WAL
	folds                  // checkpoints
	closes                 // last closes
	killsM                 // of the marker
	killsS                 // of the shipper
	powers                 // power losses
	flushes                // of one ledger page to disk by the system
	replies                // that get lost
	lates                  // requests that are given up and may arrive later
	machines               // PUTs of another machine
	ticks                  // of half a level-0 retention
	cuts                   // that a batch is cut into, beyond the first
	locks                  // lost by the shipper
	budgets
)

var budgetText = [budgets]string{"commits", "unmarked", "resizes", "resets", "folds", "closes", "killsM", "killsS", "powers",
	"flushes", "replies", "lates", "machines", "ticks", "cuts", "locks"}

// config is one search.
type config struct {
	name  string
	pages uint8 // at the start
	most  uint8 // at any time
	empty bool  // the store is, and the ledger new
	left  [budgets]uint8
}
