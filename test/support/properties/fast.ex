defmodule Mlx.Properties.Fast do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators
  alias Mlx.Fast

  @types [:f32, :f16, :bf16, :f64]

  # Kernels round halves on the way, where Nx's composition goes on in f32.
  @close [ulps: 16, scale: 4.0, signed_zero: false]

  def all do
    [
      {Fast.RMSNorm, rms_norm()},
      {Fast.LayerNorm, layer_norm()},
      {Fast.RoPE, rope()},
      {Fast.Attention, attention()},
      {Fast.Softmax, softmax()},
      {Fast.SwiGLU, swiglu()},
      {Fast.GELU, gelu()},
      {Fast.Cache, update_cache()},
      {"einsum", einsum()}
    ]
  end

  defp rms_norm do
    gen all type <- member_of(@types),
            {x, size} <- rows(type),
            weight <- one_of([nil, floats(type, {size})]),
            eps <- member_of([1.0e-5, 0.5]) do
      {&Fast.rms_norm(&1, &2, eps: eps), [x, weight], @close}
    end
  end

  defp layer_norm do
    gen all type <- member_of(@types),
            {x, size} <- rows(type),
            weight <- one_of([nil, floats(type, {size})]),
            bias <- one_of([nil, floats(type, {size})]) do
      {&Fast.layer_norm(&1, &2, &3, eps: 0.25), [x, weight, bias], @close}
    end
  end

  defp softmax do
    gen all type <- member_of(@types),
            rank <- integer(1..4),
            shape <- shape(rank, 1..7),
            x <- floats(type, shape),
            axis <- integer(-rank..(rank - 1)) do
      {&Fast.softmax(&1, axis: axis), [x], @close}
    end
  end

  defp swiglu do
    gen all type <- member_of(@types),
            rank <- integer(0..3),
            shape <- shape(rank),
            gate <- floats(type, shape),
            up <- floats(type, shape) do
      {&Fast.swiglu/2, [gate, up], @close}
    end
  end

  defp gelu do
    gen all type <- member_of(@types),
            rank <- integer(0..3),
            shape <- shape(rank),
            x <- floats(type, shape),
            approximate <- member_of([:none, :tanh, :sigmoid]) do
      {&Fast.gelu(&1, approximate: approximate), [x], @close}
    end
  end

  defp rope do
    gen all type <- member_of(@types),
            rank <- integer(2..5),
            [length | lead] <- list_of(integer(1..5), length: rank - 1),
            half <- integer(1..6),
            extra <- member_of([0, 0, 1, 3]),
            size = 2 * half + extra,
            x <- floats(type, List.to_tuple(lead ++ [length, size])),
            position <- position(lead, length),
            traditional <- boolean(),
            scale <- member_of([1.0, 0.25]),
            base <- one_of([member_of(base: 10_000, base: 100.0), frequencies(half)]) do
      opts = [dims: 2 * half, traditional: traditional, scale: scale]

      fun = fn x, position, value ->
        Fast.rope(x, position, [{elem(base, 0), value} | opts])
      end

      {fun, [x, position, elem(base, 1)], @close}
    end
  end

  defp frequencies(half) do
    map(tensor(:f32, {half}, between: {0.25, 1.0}), &{:frequencies, &1})
  end

  defp position([], _length), do: integer(0..50)

  defp position([batch | _], length) do
    one_of([
      integer(0..50),
      tensor(:s32, {}, between: {0, 50}),
      tensor(:s64, {batch}, between: {0, 50}),
      tensor(:u8, {batch, length}, between: {0, 50})
    ])
  end

  defp attention do
    gen all type <- member_of(@types),
            [batch, groups, repeats] <- list_of(integer(1..3), length: 3),
            keys <- integer(1..9),
            queries <- one_of([constant(1), integer(1..keys)]),
            size <- integer(1..9),
            # Where the kernel of the CPU is, and where it is not.
            value_size <- one_of([integer(1..9), member_of([16, 32])]),
            heads = groups * repeats,
            q <- floats(type, {batch, heads, queries, size}),
            k <- floats(type, {batch, groups, keys, size}),
            v <- floats(type, {batch, groups, keys, value_size}),
            mask <- mask(type, {batch, heads, queries, keys}),
            sinks <- one_of([nil, floats(type, {heads})]),
            lengths <- one_of([nil, tensor(:s32, {batch}, between: {1, keys})]),
            causal <- boolean(),
            position <- causal_position(causal, keys - queries, batch) do
      fun = fn q, k, v, mask, sinks, lengths, position ->
        opts = [mask: mask, sinks: sinks, lengths: lengths, position: position]
        Fast.scaled_dot_product_attention(q, k, v, [causal: causal] ++ opts)
      end

      {fun, [q, k, v, mask, sinks, lengths, position], @close}
    end
  end

  # Some of the shapes that broadcast. Of booleans the first is true, so that there is a key.
  defp mask(type, {batch, heads, queries, keys}) do
    shapes = [
      {queries, keys},
      {1, keys},
      {batch, 1, queries, keys},
      {batch, heads, queries, keys},
      {heads, 1, keys}
    ]

    one_of([
      nil,
      bind(member_of(shapes), &floats(type, &1)),
      bind(member_of(shapes), &map(tensor(:u8, &1, between: {0, 1}), fn mask -> first(mask) end))
    ])
  end

  defp first(mask) do
    axis = Nx.rank(mask) - 1
    Nx.max(mask, Nx.equal(Nx.iota(mask.shape, axis: axis, backend: Nx.BinaryBackend), 0))
  end

  defp causal_position(false, _latest, _batch), do: constant(nil)

  defp causal_position(true, latest, batch) do
    one_of([
      nil,
      integer(0..latest),
      tensor(:s32, {}, between: {0, latest}),
      tensor(:s32, {batch}, between: {0, latest})
    ])
  end

  defp update_cache do
    gen all type <- member_of(@types),
            [batch, heads, size] <- list_of(integer(1..3), length: 3),
            length <- integer(1..6),
            count <- integer(1..length),
            cache <- floats(type, {batch, heads, length, size}),
            update <- floats(type, {batch, heads, count, size}),
            position <-
              one_of([
                integer(-3..9),
                tensor(:s32, {}, between: {-3, 9}),
                tensor(:s64, {batch}, between: {-3, 9})
              ]) do
      {&Fast.update_cache/3, [cache, update, position], []}
    end
  end

  # Terms over a few axes, and what is written out of one of them.
  defp einsum do
    gen all labels <- constant(~w(a b c d)),
            sizes <- list_of(integer(1..3), length: 4),
            sizes = Map.new(Enum.zip(labels, sizes)),
            terms <-
              list_of(list_of(member_of(labels), max_length: 4), min_length: 1, max_length: 3),
            used = terms |> Enum.concat() |> Enum.uniq(),
            kept <- list_of(boolean(), length: length(used)),
            output = for({label, true} <- Enum.zip(used, kept), do: label),
            type <- member_of([:f32, :f64, :s32]),
            tensors <- fixed_list(Enum.map(terms, &tensor(type, of(&1, sizes), small: true))) do
      subscripts = Enum.map_join(terms, ",", &Enum.join/1) <> "->" <> Enum.join(output)

      {fn tensors -> Fast.einsum(subscripts, tensors) end, [tensors],
       oracle: &plain(&1, terms, output, sizes), ulps: 16, scale: 64.0, signed_zero: false}
    end
  end

  defp of(labels, sizes), do: labels |> Enum.map(&sizes[&1]) |> List.to_tuple()

  # All products, and the sum of those that belong to an element.
  defp plain(tensors, terms, output, sizes) do
    all = Map.keys(sizes)
    flat = Enum.map(tensors, &{List.to_tuple(Nx.to_flat_list(&1)), &1.shape})

    sums =
      for values <- combinations(Enum.map(all, &(0..(sizes[&1] - 1)))), reduce: %{} do
        sums ->
          at = Map.new(Enum.zip(all, values))
          unused = all -- Enum.uniq(Enum.concat(terms))

          if Enum.all?(unused, &(at[&1] == 0)) do
            product = Enum.zip_with(flat, terms, &element(&1, &2, at)) |> Enum.product()
            Map.update(sums, Enum.map(output, &at[&1]), product, &(&1 + product))
          else
            sums
          end
      end

    numbers = for place <- combinations(Enum.map(output, &(0..(sizes[&1] - 1)))), do: sums[place]
    Nx.tensor(numbers, type: hd(tensors).type) |> Nx.reshape(of(output, sizes))
  end

  defp combinations([]), do: [[]]

  defp combinations([range | ranges]),
    do: for(first <- range, rest <- combinations(ranges), do: [first | rest])

  defp element({numbers, shape}, labels, at) do
    place =
      for {label, size} <- Enum.zip(labels, Tuple.to_list(shape)), reduce: 0 do
        place -> place * size + at[label]
      end

    elem(numbers, place)
  end

  defp rows(type) do
    gen all rank <- integer(1..4), shape <- shape(rank, 1..9), x <- floats(type, shape) do
      {x, elem(shape, rank - 1)}
    end
  end

  defp floats(type, shape), do: tensor(type, shape)
end
