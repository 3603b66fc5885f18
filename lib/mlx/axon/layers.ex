if Code.ensure_loaded?(Axon) do
  defmodule Mlx.Axon.Layers do
    @moduledoc false

    # What layers compute once they are swapped. The arguments are those of the layers before.

    alias Mlx.Axon.Rotary
    alias Mlx.Fast

    # Bumblebee may be missing, and no version of it is needed.
    @bumblebee Bumblebee.Layers

    @doc """
    The name of a private function of Bumblebee's layers.
    """
    def bumblebee(op) when is_function(op) do
      info = Function.info(op)
      if info[:module] == @bumblebee, do: info[:name]
    end

    def bumblebee(_op), do: nil

    def layer_norm(x, gamma, beta, opts) do
      Fast.layer_norm(x, gamma, beta, eps: opts[:epsilon] || 1.0e-5)
    end

    def rms_norm(x, weight, opts) do
      weight = if opts[:shift] == 0, do: weight, else: Nx.add(weight, opts[:shift])
      Fast.rms_norm(x, weight, eps: opts[:epsilon])
    end

    def wide_rms_norm(x, weight, opts) do
      [x, weight] = for tensor <- [x, weight], do: Nx.as_type(tensor, :f32)
      rms_norm(x, weight, opts)
    end

    def swiglu(gate, up) do
      shape = shape(gate, up)
      Fast.swiglu(Nx.broadcast(gate, shape), Nx.broadcast(up, shape))
    end

    @doc """
    The function of a layer whose activation is one of `Mlx.Fast.gelu/2`, or `nil`.
    """
    def gelu(op) do
      if approximate = approximate(op),
        do: fn x, _opts -> Fast.gelu(x, approximate: approximate) end
    end

    defp approximate(:gelu), do: :none
    defp approximate(op) when is_atom(op), do: nil

    # Bumblebee's own activations are called by their names, which a closure holds.
    defp approximate(op) do
      info = Function.info(op)

      case {info[:module], info[:env]} do
        {@bumblebee, [:gelu_approx_tanh]} -> :tanh
        {@bumblebee, [:gelu_approx_sigmoid]} -> :sigmoid
        _ -> nil
      end
    end

    ## Rotary embeddings

    def rope(query, key, position_ids, attention_mask, opts) do
      length = Nx.axis_size(absent(attention_mask) || position_ids, 1)
      {frequencies, factor} = Rotary.frequencies(length, opts)
      frequencies = Nx.tensor(frequencies, type: :f32)
      position = position(Nx.as_type(position_ids, :s64))

      [query, key] =
        for x <- [query, key] do
          turned =
            x |> swapped() |> Fast.rope(position, dims: opts[:size], frequencies: frequencies)

          turned |> swapped() |> times(factor)
        end

      {query, key}
    end

    # Of single tokens it is where each of the batch starts, which kernels take.
    defp position(%{shape: {1, 1}} = ids), do: Nx.reshape(ids, {})
    defp position(%{shape: {batch, 1}} = ids), do: Nx.reshape(ids, {batch})
    defp position(ids), do: ids

    defp times(x, 1.0), do: x
    defp times(x, factor), do: Nx.multiply(x, Nx.tensor(factor, type: Nx.type(x)))

    ## Attention

    @doc """
    The function of a layer that gave `original` before, which also has the inputs of its weights.
    """
    def attention(original) do
      fn weights, value, query, key, key_mask, head_mask, bias, offset, opts ->
        if opts[:mode] == :train and opts[:dropout_rate] > 0 do
          original.(weights, value, opts)
        else
          [key_mask, head_mask, bias, offset] =
            for input <- [key_mask, head_mask, bias, offset], do: absent(input)

          seen = seen(key_mask, query, key, offset || 0, opts)
          mask = mask(seen, bias, Nx.type(query))
          scale = if opts[:scale], do: [scale: opts[:scale]], else: []
          mask = if mask, do: [mask: mask], else: []
          [query, key, value] = for x <- [query, key, value], do: swapped(x)

          query
          |> Fast.scaled_dot_product_attention(key, value, scale ++ mask)
          |> heads(head_mask)
          |> swapped()
        end
      end
    end

    # A number for each head, which may as well be multiplied with what the weights give.
    defp heads(x, nil), do: x
    defp heads(x, head_mask), do: Nx.multiply(x, Nx.reshape(head_mask, {1, :auto, 1, 1}))

    # Which keys a query sees, of rank 4, or nil if it sees all.
    defp seen(key_mask, query, key, offset, opts) do
      distance = fn ->
        [queries, keys] = for x <- [query, key], do: Nx.axis_size(x, 1)
        Nx.subtract(Nx.add(Nx.iota({1, 1, queries, 1}), offset), Nx.iota({1, 1, 1, keys}))
      end

      near =
        case {opts[:causal], opts[:window_size]} do
          {false, nil} -> nil
          {true, nil} -> Nx.greater_equal(distance.(), 0)
          {false, {left, right}} -> within(distance.(), left, right)
          {true, {left, _right}} -> within(distance.(), left, 0)
        end

      both(key_mask(key_mask), near)
    end

    defp within(distance, left, right) do
      Nx.logical_and(Nx.less_equal(distance, left), Nx.greater_equal(distance, -right))
    end

    defp key_mask(%{shape: {batch, keys}} = mask), do: Nx.reshape(mask, {batch, 1, 1, keys})
    defp key_mask(mask), do: mask

    defp both(a, b) when a == nil or b == nil, do: a || b
    defp both(a, b), do: Nx.logical_and(a, b)

    # Numbers to add, so that a query that sees no key has the mean that it had before.
    defp mask(nil, bias, _type), do: bias

    defp mask(seen, bias, type) do
      added = bias || Nx.tensor(0.0, type: type)
      shape = shape(seen, added)
      hidden = Nx.Constants.min_finite(type)
      Nx.select(Nx.broadcast(seen, shape), Nx.broadcast(added, shape), hidden)
    end

    # {batch, length, heads, size} to {batch, heads, length, size} and back.
    defp swapped(x), do: Nx.transpose(x, axes: [0, 2, 1, 3])

    # That to which both broadcast.
    defp shape(a, b) do
      [a, b] = for tensor <- [a, b], do: tensor |> Nx.shape() |> Tuple.to_list()
      rank = max(length(a), length(b))
      [a, b] = for sizes <- [a, b], do: List.duplicate(1, rank - length(sizes)) ++ sizes
      a |> Enum.zip_with(b, &max/2) |> List.to_tuple()
    end

    defp absent(%Axon.None{}), do: nil
    defp absent(input), do: input
  end
end
