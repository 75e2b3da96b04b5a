"""The three operations in plain torch: slow, and the definition of what the fast kernels compute."""

from __future__ import annotations

import torch

from sparse_backend.constants import BLOCK
from sparse_backend.constants import pages as pages_of
from sparse_backend.kernels.batch import DecodeBatch, Heads, Softmax, keys_and_values


class ReferenceKernels:
    def check(self, heads: Heads) -> None:
        """See Kernels.check. Everything goes."""

    def update_summaries(
        self,
        heads: Heads,
        batch: DecodeBatch,
        cache: torch.Tensor,
        tiles: torch.Tensor,
        requests: torch.Tensor,
        starts: torch.Tensor,
    ) -> None:
        """See Kernels.update_summaries. Recomputes the tile of every touched block."""
        if heads.tile_bytes == 0:
            return
        ps, ppt = heads.page_size, heads.pages_of_tile
        for request, start in zip(requests.tolist(), starts.tolist(), strict=True):
            complete = int(batch.seq_lens[request]) // ps
            if complete <= start // ps:
                continue
            for block in range(start // ps // ppt, pages_of(complete, ppt)):
                pages = torch.arange(block * ppt, min((block + 1) * ppt, complete))
                n = len(pages)
                k, v = pages_of_request(heads, cache, batch.block_table[request], pages)
                # Pages still incomplete repeat a complete one: nobody reads their summary, the mean value leaves
                # them out.
                padded = torch.cat([k, k[:, -1:].expand(-1, ppt - n, -1, -1)], 1)
                fresh = heads.selector.summarise(padded, v)
                first = batch.block_table[request, block * heads.kernel_blocks_of_tile]
                tiles[heads.tile_index(first), :, : heads.tile_bytes] = fresh

    def select_pages(
        self, heads: Heads, batch: DecodeBatch, query: torch.Tensor, tiles: torch.Tensor, softmax: Softmax
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See Kernels.select_pages."""
        requests = len(batch.requests)
        width = batch.block_table.shape[1] * heads.kernel_block_tokens // heads.page_size
        table = torch.zeros(requests, heads.kv_heads, width, dtype=torch.int32)
        counts = torch.zeros(requests, heads.kv_heads, dtype=torch.int32)
        for i in range(requests):
            for head in range(heads.kv_heads):
                selected, _ = self._select(heads, batch, query, tiles, softmax, i, head)
                table[i, head, : len(selected)] = selected
                counts[i, head] = len(selected)
        return table, counts

    def decode(
        self,
        heads: Heads,
        batch: DecodeBatch,
        query: torch.Tensor,
        cache: torch.Tensor,
        tiles: torch.Tensor,
        output: torch.Tensor,
        softmax: Softmax,
    ) -> None:
        """See Kernels.decode."""
        for i in range(len(batch.requests)):
            for head in range(heads.kv_heads):
                selected, dropped = self._select(heads, batch, query, tiles, softmax, i, head)
                out = self._attend(heads, batch, query, cache, tiles, softmax, i, head, selected, dropped)
                first = head * heads.num_queries_per_kv
                output[batch.tokens[i], first : first + heads.num_queries_per_kv] = out.to(output.dtype)

    def _query(self, heads: Heads, batch: DecodeBatch, query: torch.Tensor, i: int, head: int) -> torch.Tensor:
        queries = heads.num_queries_per_kv
        return query[batch.tokens[i], head * queries : (head + 1) * queries].float()

    def _tiles(self, heads: Heads, batch: DecodeBatch, request: int) -> torch.Tensor:
        """The tiles of a request's blocks."""
        count = pages_of(int(batch.seq_lens[request]), heads.kernel_block_tokens)
        return heads.tile_index(batch.block_table[request, : count : heads.kernel_blocks_of_tile].long())

    def _select(
        self,
        heads: Heads,
        batch: DecodeBatch,
        query: torch.Tensor,
        tiles: torch.Tensor,
        softmax: Softmax,
        i: int,
        head: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Selected logical pages [n], and the estimated log mass of the others, [num_queries_per_kv, pages] with -inf
        for those selected."""
        request, ps = int(batch.requests[i]), heads.page_size
        tokens = int(batch.seq_lens[request])
        pages = pages_of(tokens, ps)
        sink = min(pages, pages_of(heads.sink_tokens, ps))
        local = max(sink, max(0, tokens - heads.local_tokens) // ps)
        wanted = int(batch.key_tokens[i]) // ps - sink - (pages - local)
        dropped = torch.full((heads.num_queries_per_kv, pages), -torch.inf)
        if heads.selector.tile_bytes(heads.head_size, ps) == 0 or wanted >= local - sink:
            return torch.arange(pages), dropped
        blocks = self._tiles(heads, batch, request)
        q = self._query(heads, batch, query, i, head) * softmax.scale
        log_mass = heads.selector.log_mass(tiles[blocks, head, : heads.tile_bytes], q, ps)[:, : tokens // ps]
        log_mass = softmax.cap_mass(log_mass, ps)
        everything = torch.cat([log_mass, sink_logits(heads, softmax, head)], -1)
        chosen = heads.selector.page_scores(everything)[sink:local].topk(max(wanted, 0)).indices
        dropped[:, sink:local] = log_mass[:, sink:local]
        dropped[:, sink + chosen] = -torch.inf
        return torch.cat([torch.arange(sink), sink + chosen.sort().values, torch.arange(local, pages)]), dropped

    def _attend(
        self,
        heads: Heads,
        batch: DecodeBatch,
        query: torch.Tensor,
        cache: torch.Tensor,
        tiles: torch.Tensor,
        softmax: Softmax,
        i: int,
        head: int,
        selected: torch.Tensor,
        dropped: torch.Tensor,
    ) -> torch.Tensor:
        """Attention of one KV head's queries over its selected pages, float32 [num_queries_per_kv, head_size]."""
        request, ps = int(batch.requests[i]), heads.page_size
        tokens = int(batch.seq_lens[request])
        position = (selected[:, None] * ps + torch.arange(ps)).flatten()
        keys, values = pages_of_request(heads, cache, batch.block_table[request], selected)
        k, v = (x[head].flatten(0, 1)[position < tokens] for x in (keys, values))
        position = position[position < tokens]
        logits = softmax.cap(self._query(heads, batch, query, i, head) @ k.T * softmax.scale)
        sinks = sink_logits(heads, softmax, head)

        # The tokens whose values are read: the heaviest for all queries, and those of the incomplete last page.
        tail = tokens % ps
        complete = len(position) - tail
        weight = torch.softmax(torch.cat([logits, sinks], -1), -1).sum(0)[:complete]
        count = min(complete, max(0, int(batch.value_tokens[i]) - tail))
        read = torch.zeros(len(position), dtype=torch.bool)
        read[weight.topk(count).indices] = True
        read[complete:] = True
        if not heads.selector.residual:
            kept = torch.cat([logits.masked_fill(~read, -torch.inf), sinks], -1)
            return torch.softmax(kept, -1)[:, : len(position)] @ v

        # What is not read counts as its mass times the mean value of its neighbours.
        everything = torch.cat([logits, dropped, sinks], -1)
        probability = torch.softmax(everything, -1)[:, : len(position) + dropped.shape[1]]
        blocks = self._tiles(heads, batch, request)
        mean = heads.selector.mean_values(tiles[blocks, head, : heads.tile_bytes], heads.head_size, ps)
        of_mean = torch.cat([position, torch.arange(dropped.shape[1]) * ps]) * len(mean) // (len(blocks) * BLOCK)
        out = probability[:, : len(position)][:, read] @ v[read]
        unread = torch.cat([~read, torch.ones(dropped.shape[1], dtype=torch.bool)])
        rest = torch.zeros(heads.num_queries_per_kv, len(mean)).index_add_(1, of_mean[unread], probability[:, unread])
        # Where no page is complete there is no mean, and nothing unread.
        return out + rest @ torch.where((rest > 0).any(0)[:, None], mean, torch.zeros(()))


def sink_logits(heads: Heads, softmax: Softmax, head: int) -> torch.Tensor:
    """float32 [num_queries_per_kv, 1] of a KV head's queries; [num_queries_per_kv, 0] where there are no sinks."""
    if softmax.sinks is None:
        return torch.empty(heads.num_queries_per_kv, 0)
    return softmax.sinks.float().view(heads.kv_heads, heads.num_queries_per_kv, 1)[head]


def pages_of_request(
    heads: Heads, cache: torch.Tensor, block_table: torch.Tensor, pages: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of logical pages, float32 [kv_heads, pages, page_size, head_size].

    block_table: the request's kernel blocks.
    """
    position = pages[:, None] * heads.page_size + torch.arange(heads.page_size)  # [pages, page_size]
    size = heads.kernel_block_tokens
    kernel_blocks, slot = block_table[position // size].long(), position % size
    keys, values = keys_and_values(cache, heads.head_size)
    # Indices apart from each other put their dimensions first: [pages, page_size, kv_heads, head_size].
    return keys[kernel_blocks, :, :, slot].float().permute(2, 0, 1, 3), values[kernel_blocks, :, slot].float().permute(
        2, 0, 1, 3
    )
