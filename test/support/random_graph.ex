defmodule Mlx.RandomGraph do
  @moduledoc """
  Random graphs of integer tensors, run one operation after the other or by many processes
  on many streams at once. Integers wrap, so that every order gives the same bits.
  """

  import Nx.Defn

  @operations 12
  @backend Mlx.Backend

  @doc """
  A graph of `count` nodes over `streams` streams, the same for the same seed.
  """
  def new(seed, count, streams) do
    rand = :rand.seed_s(:exsss, seed)
    {side, rand} = one_of([3, 20, 200], rand)
    {nodes, _rand} = Enum.map_reduce(1..(count - 1), rand, &node(&1, streams, &2))
    readers = nodes |> Enum.flat_map(& &1.operands) |> Enum.frequencies()

    %{
      side: side,
      nodes: nodes,
      readers: readers,
      kept: for(%{kept: true, at: at} <- nodes, do: at)
    }
  end

  # Mostly of what was just made, so that streams wait for each other.
  defp node(at, streams, rand) do
    {[a, b], rand} = Enum.map_reduce([1, 2], rand, fn _, rand -> below(12, rand) end)
    {kind, rand} = below(@operations, rand)
    {stream, rand} = below(streams, rand)
    {errand, rand} = below(10, rand)
    {kept, rand} = below(6, rand)
    operands = for back <- [a, b], do: max(at - 1 - back, 0)

    {%{at: at, operands: operands, kind: kind, stream: stream, errand: errand, kept: kept == 0},
     rand}
  end

  defp below(bound, rand) do
    {number, rand} = :rand.uniform_s(bound, rand)
    {number - 1, rand}
  end

  defp one_of(list, rand) do
    {at, rand} = below(length(list), rand)
    {Enum.at(list, at), rand}
  end

  @doc """
  The kept results, each computed before the next operation is queued.
  """
  def serially(graph) do
    tensors =
      Enum.reduce(graph.nodes, %{0 => source(graph)}, fn node, tensors ->
        [a, b] = Enum.map(node.operands, &tensors[&1])
        Map.put(tensors, node.at, Mlx.eval(apply_kind(node.kind, a, b)))
      end)

    for at <- graph.kept, do: Nx.to_binary(tensors[at])
  end

  @doc """
  The same, with a process for each node, of which `processes` run at a time.
  """
  def at_once(graph, streams, processes) do
    board = :ets.new(:board, [:public, read_concurrency: true, write_concurrency: true])
    streams = List.to_tuple(streams)

    # A tensor goes when the last that reads it has done so.
    for at <- [0 | Enum.map(graph.nodes, & &1.at)] do
      kept = if at in graph.kept, do: 1, else: 0
      :ets.insert(board, {{:readers, at}, Map.get(graph.readers, at, 0) + kept})
    end

    :ets.insert(board, {0, source(graph)})

    graph.nodes
    |> Task.async_stream(&run(&1, board, streams),
      max_concurrency: processes,
      ordered: false,
      timeout: :infinity
    )
    |> Stream.run()

    for at <- graph.kept, do: board |> fetch(at) |> Nx.to_binary()
  end

  defp run(%{at: at} = node, board, streams) do
    [a, b] = Enum.map(node.operands, &fetch(board, &1))
    stream = elem(streams, node.stream)
    result = Mlx.Stream.with_stream(stream, fn -> apply_kind(node.kind, a, b) end)
    Enum.each(node.operands, &let_go(board, &1))
    if :ets.lookup_element(board, {:readers, at}, 2) > 0, do: :ets.insert(board, {at, result})
    errand(node.errand, result, stream, a)
    :ok
  end

  defp fetch(board, at) do
    case :ets.lookup(board, at) do
      [{^at, tensor}] ->
        tensor

      [] ->
        Process.sleep(0)
        fetch(board, at)
    end
  end

  defp let_go(board, at) do
    if :ets.update_counter(board, {:readers, at}, -1) == 0, do: :ets.delete(board, at)
  end

  defp errand(0, result, _stream, _operand), do: Nx.to_binary(result)
  defp errand(1, result, _stream, _operand), do: Mlx.async_eval(result)
  defp errand(2, result, _stream, operand), do: Mlx.eval({result, operand})
  defp errand(3, _result, stream, _operand), do: Mlx.Stream.synchronize(stream)
  defp errand(4, _result, _stream, _operand), do: :erlang.garbage_collect()
  defp errand(_none, _result, _stream, _operand), do: :ok

  defp source(%{side: side}) do
    {side, side} |> Nx.iota(type: :s32, backend: @backend) |> Nx.multiply(7) |> Nx.subtract(50)
  end

  defp apply_kind(0, a, b), do: Nx.add(a, b)
  defp apply_kind(1, a, b), do: a |> Nx.multiply(b) |> Nx.bitwise_xor(a)
  defp apply_kind(2, a, b), do: a |> Nx.max(b) |> Nx.subtract(b)
  defp apply_kind(3, a, _b), do: Nx.transpose(a)
  defp apply_kind(4, a, _b), do: Nx.sort(a, axis: 1)
  defp apply_kind(5, a, b), do: a |> Nx.cumulative_sum(axis: 0) |> Nx.bitwise_and(b)
  defp apply_kind(6, a, b), do: a |> Nx.reverse(axes: [0]) |> Nx.add(Nx.sum(b, axes: [0]))
  defp apply_kind(7, a, b), do: Nx.take(a, Nx.argsort(b[0]))
  defp apply_kind(8, a, b), do: Nx.dot(a[[.., 0..1]], b[0..1])
  defp apply_kind(9, a, b), do: jit(&mixed/2, a, b)
  defp apply_kind(10, a, b), do: jit(&looped/2, a, b)
  defp apply_kind(11, a, b), do: jit(&branched/2, a, b)

  defp jit(fun, a, b), do: Nx.Defn.jit_apply(fun, [a, b], compiler: Mlx.Compiler)

  defn mixed(a, b), do: Nx.select(a > b, a - b, Nx.transpose(b)) * 3 + a

  defn looped(a, b) do
    {a, _b, _i} =
      while {a, b, i = 0}, i < 5 do
        {a + Nx.bitwise_xor(b, i), Nx.transpose(b), i + 1}
      end

    a
  end

  defn branched(a, b) do
    if Nx.bitwise_and(Nx.sum(a), 1) == 0, do: a + Nx.sort(b, axis: 0), else: b - a
  end
end
