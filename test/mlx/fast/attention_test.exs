defmodule Mlx.Fast.AttentionTest do
  use ExUnit.Case, async: true
  import Mlx.FastCase
  import Mlx.Oracle
  import Mlx.Samples
  alias Mlx.Fast

  @types [:f32, :f16, :bf16, :f64]
  @close close()

  for type <- @types,
      {heads, groups} <- [{1, 1}, {4, 4}, {6, 2}, {5, 1}],
      queries <- [1, 3, 7] do
    test "of #{type}, #{heads} heads to #{groups}, #{queries} queries" do
      args = attended(unquote(type), 2, {unquote(heads), unquote(groups)}, unquote(queries), 7)
      assert_attends(args, [])
      assert_attends(args, causal: true)
      assert_attends(args, scale: 0.3, sinks: waves(unquote(type), {unquote(heads)}))
    end
  end

  # Values of sixteen numbers, for which the CPU has a kernel, beside ones for which it has none.
  for type <- @types, heads <- [1, 3], queries <- [6, 7, 20] do
    test "of #{type}, #{heads} heads, #{queries} queries of any layout" do
      [q, k] =
        for length <- [unquote(queries), 20],
            do: waves(unquote(type), {2, length, unquote(heads), 8})

      v = waves(unquote(type), {2, 20, unquote(heads), 48})
      mask = waves(unquote(type), {2, 1, 1, 20})

      for opts <- [[], [causal: true], [mask: mask], [mask: mask[0..0], scale: 0.5]],
          width <- [16, 31, 32] do
        attend = fn q, k, v ->
          [q, k, v] = for x <- [q, k, v], do: Nx.transpose(x, axes: [0, 2, 1, 3])
          out = Fast.scaled_dot_product_attention(q, k, v[[.., .., .., 8..(7 + width)]], opts)
          {out, out |> Nx.transpose(axes: [0, 2, 1, 3]) |> Nx.reshape({2, :auto})}
        end

        assert_same(attend, [q, k, v], @close)
      end
    end
  end

  for type <- @types do
    test "with masks of #{type}" do
      args = attended(unquote(type), 2, {4, 2}, 3, 7)

      for shape <- [{7}, {3, 7}, {4, 3, 1}, {2, 1, 3, 7}, {2, 4, 3, 7}] do
        mask = waves(unquote(type), shape)
        seen = mask |> Nx.greater(0) |> Nx.max(Nx.equal(Nx.iota(shape, axis: -1), 0))

        for mask <- [mask, seen],
            opts <- [[], [causal: true], [lengths: tensor([3, 5], :s32)]] do
          assert_attends(args, [mask: mask] ++ opts)
        end
      end
    end
  end

  test "of more queries than are taken together" do
    for type <- [:f32, :bf16], keys <- [70, 133] do
      args = attended(type, 1, {4, 2}, 70, keys)
      assert_attends(args, causal: true)
      assert_attends(args, causal: true, sinks: waves(type, {4}))
    end
  end

  test "with positions that the host gives, or others" do
    for queries <- [1, 3],
        at <- [0, 2, 4, 6, 100, -3],
        type <- [:s32, :s64, :u8],
        at >= 0 or type != :u8 do
      args = attended(:f32, 2, {4, 2}, queries, 7)
      assert_attends(args, causal: true, position: tensor(at, type))
      opts = [causal: true, position: tensor(at, type), sinks: waves(:f32, {4})]
      assert_attends(args, opts)
    end
  end

  test "with positions and lengths" do
    args = attended(:f32, 2, {4, 2}, 3, 7)

    for causal <- [
          [causal: true, position: 2],
          [causal: true, position: tensor(2, :u8)],
          [causal: true, position: tensor([0, 4], :s64)],
          [causal: true],
          []
        ],
        lengths <- [[], [lengths: 4], [lengths: tensor([1, 6], :u32)]] do
      assert_attends(args, causal ++ lengths)
    end
  end

  test "sees the first key whatever positions and lengths there are" do
    args = attended(:f32, 2, {4, 2}, 3, 7)

    for opts <- [
          [causal: true, position: tensor([-5, -1], :s32)],
          [causal: true, position: tensor(100, :s32)],
          [lengths: tensor([0, -3], :s32)],
          [lengths: 1000]
        ] do
      assert_attends(args, opts)
    end
  end

  test "gives means where nothing is seen" do
    for type <- [:f32, :f16, :bf16] do
      args = attended(type, 1, {2, 1}, 3, 4)
      assert_attends(args, mask: Nx.broadcast(tensor(0, :u8), {3, 4}))
    end
  end

  test "a mask of the least numbers of f32 hides keys in halves" do
    mask = tensor([0.0, -3.4e38, 0.0, -1.0e30], :f32)
    seen = tensor([1, 0, 1, 0], :u8)

    for type <- [:f16, :bf16] do
      [q, k, v] = attended(type, 1, {2, 1}, 3, 4)
      attend = &Fast.scaled_dot_product_attention(q, k, v, mask: &1)
      assert_equivalent(Nx.backend_copy(attend.(mask), Mlx.Backend), attend.(seen), @close)
    end
  end

  test "of vectorized tensors" do
    [q, k, v] = attended(:f32, 6, {2, 1}, 3, 4)

    [q, k, v] =
      for x <- [q, k, v],
          do: Nx.vectorize(Nx.reshape(x, put_elem(x.shape, 0, 3) |> Tuple.insert_at(0, 2)), :v)

    each = Nx.vectorize(tensor([1, 3], :s32), :v)

    for opts <- [
          [],
          [lengths: each],
          [lengths: tensor([1, 2, 3], :s32)],
          [mask: waves(:f32, {3, 1, 1, 4})]
        ] do
      assert_attends([q, k, v], opts)
    end

    assert_attends(
      [
        q,
        hd(Nx.to_batched(Nx.devectorize(k), 1) |> Enum.to_list()) |> Nx.squeeze(axes: [0]),
        v
      ],
      []
    )
  end

  test "needs room for what queries make of keys" do
    x = Nx.broadcast(Nx.tensor(0.0, backend: Mlx.Backend), {1, 64, 100_000, 1})

    error =
      assert_raise Mlx.Error, fn -> Mlx.eval(Fast.scaled_dot_product_attention(x, x, x)) end

    assert error.kind == :memory
  end

  test "refuses what has no meaning" do
    [q, k, v] = attended(:f32, 2, {4, 2}, 3, 7)

    for {args, opts, message} <- [
          {[waves(:f32, {3, 8}), k, v], [], "queries {batch, heads, length, size}"},
          {[q, waves(:f32, {2, 2, 7, 4}), v], [], "keys {2, heads, length, 8}"},
          {[q, waves(:f32, {3, 2, 7, 8}), v], [], "keys {2, heads, length, 8}"},
          {[q, waves(:f32, {2, 3, 7, 8}), v], [], "a multiple of the 3"},
          {[q, k, waves(:f32, {2, 2, 6, 5})], [], "as many values as there are keys"},
          {[k, q, v], [], "a multiple"},
          {[q, k, v], [scale: :small], "a number as :scale"},
          {[q, k, v], [mask: waves(:f32, {2, 7})], "a mask that broadcasts to {2, 4, 3, 7}"},
          {[q, k, v], [mask: waves(:f32, {1, 2, 4, 3, 7})], "a mask that broadcasts"},
          {[q, k, v], [mask: Nx.iota({7})], "a mask of u8 or of floats"},
          {[q, k, v], [sinks: waves(:f32, {2})], "sinks of shape {4}"},
          {[q, k, v], [lengths: waves(:f32, {2})], "integers as :lengths"},
          {[q, k, v], [lengths: tensor([1, 2, 3], :s32)], ":lengths of shape {} or {2}"},
          {[q, k, v], [position: 1], "for causal: true only"},
          {[q, k, v], [causal: true, position: 5], "a number from 0 to 4 as :position"},
          {[q, k, v], [causal: :yes], "a boolean as :causal"},
          {[v, v, q], [], "as many values"}
        ] do
      refused(message, fn -> apply(&Fast.scaled_dot_product_attention/4, args ++ [opts]) end)
    end

    few = Nx.slice_along_axis(q, 0, 2, axis: 2)

    refused("takes a :position", fn ->
      Fast.scaled_dot_product_attention(q, few, few, causal: true)
    end)
  end

  defp attended(type, batch, {heads, groups}, queries, keys) do
    [
      waves(type, {batch, heads, queries, 8}),
      waves(type, {batch, groups, keys, 8}),
      waves(type, {batch, groups, keys, 5})
    ]
  end

  # Tensors among the options are arguments, too.
  defp assert_attends(args, opts) do
    {tensors, opts} = Enum.split_with(opts, &match?({_, %Nx.Tensor{}}, &1))

    fun = fn q, k, v, tensors ->
      Fast.scaled_dot_product_attention(q, k, v, Map.to_list(tensors) ++ opts)
    end

    assert_same(fun, args ++ [Map.new(tensors)], @close)
  end
end
