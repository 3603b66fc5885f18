defmodule Mlx.DistributionTest do
  @moduledoc """
  Servings on other nodes, and tensors that go there.
  """

  use ExUnit.Case, async: false

  import Mlx.AtOnce
  alias Mlx.Peers

  @elsewhere ~r/is not in this VM: it belongs to another node/

  setup_all do
    Peers.distribute()
    {:ok, nodes: [Peers.start(), Peers.start()]}
  end

  defp to_host(container), do: Nx.backend_copy(container, Nx.BinaryBackend)

  defp serve(nodes, opts) do
    name = :"serving_#{System.unique_integer([:positive])}"
    Enum.each(nodes, &Peers.serve(&1, name, opts))
    await_members(name, length(nodes))
    name
  end

  # The members of a group are known here a little later than there.
  defp await_members(name, count) do
    if length(:pg.get_members(Nx.Serving.PG, name)) < count do
      Process.sleep(5)
      await_members(name, count)
    end
  end

  test "two nodes serve what processes of a third ask for", %{nodes: nodes} do
    name = serve(nodes, serving: :squares, copy: true)

    answered =
      at_once(60, fn at ->
        rows = Nx.tensor([[at, at + 1], [-at, 7]], backend: Mlx.Backend)
        {node, squares} = Nx.Serving.batched_run(name, rows, &to_host/1)
        assert Nx.to_list(squares) == [[2 * at ** 2, 2 * (at + 1) ** 2], [2 * at ** 2, 98]]
        node
      end)

    assert Enum.sort(Enum.uniq(answered)) == Enum.sort(nodes)
  end

  test "a node streams its batches to another", %{nodes: [node | _]} do
    name = serve([node], serving: :streamed)
    stream = Nx.Serving.batched_run(name, Nx.iota({4, 1}, backend: Mlx.Backend), &to_host/1)
    assert [{:batch, rows, :server_info}] = Enum.to_list(stream)
    assert Nx.to_flat_list(rows) == [0, 1, 4, 9]
  end

  @tag :capture_log
  test "a tensor that was not copied is refused where it arrives", %{nodes: [node | _]} do
    name = serve([node], serving: :squares, copy: false)
    rows = Nx.tensor([[1], [2], [3], [4]], backend: Mlx.Backend)

    assert {reason, _} = catch_exit(Nx.Serving.batched_run(name, rows))
    assert inspect(reason) =~ @elsewhere

    # The serving is the same after it.
    assert {^node, squares} = Nx.Serving.batched_run(name, rows, &to_host/1)

    for use <-
          [&Nx.to_binary/1, &Nx.add(&1, 1), &Nx.backend_transfer/1, &Mlx.eval/1] ++
            [&Mlx.shape/1, &Mlx.async_eval/1, &Nx.backend_deallocate/1, &Nx.to_pointer(&1)] ++
            [&Nx.Defn.jit_apply(fn x -> Nx.exp(x) end, [&1], compiler: Mlx.Compiler)] do
      error = assert_raise Mlx.Error, @elsewhere, fn -> use.(squares) end
      assert error.kind == :device
      assert Exception.message(error) =~ "Nx.backend_copy(tensor, Nx.BinaryBackend)"
    end
  end

  test "a tensor that comes home is good again", %{nodes: [node | _]} do
    tensor = Nx.tensor([1, 2, 3], backend: Mlx.Backend)
    assert {%Nx.Tensor{} = back, _} = :erpc.call(node, Function, :identity, [{tensor, 1}])
    assert Nx.to_list(Nx.add(back, 1)) == [2, 3, 4]
  end

  test "streams and compiled functions stay where they are", %{nodes: [node | _]} do
    stream = Mlx.Stream.new()
    add = Nx.Defn.compile(&Nx.add(&1, 1), [Nx.template({2}, :s32)], compiler: Mlx.Compiler)
    there = &:erpc.call(node, :erlang, :apply, [&1, &2])

    for {fun, args, what} <- [
          {&Mlx.Stream.synchronize/1, [stream], "the stream"},
          {&Mlx.Stream.close/1, [stream], "the stream"},
          {add, [to_host(Nx.tensor([1, 2]))], "the compiled function"}
        ] do
      assert {:exception, %Mlx.Error{message: message}, _} =
               assert_raise(ErlangError, fn -> there.(fun, args) end).original

      assert message =~ @elsewhere and message =~ what
    end

    assert Mlx.Stream.synchronize(stream) == :ok
    assert Nx.to_list(add.(Nx.tensor([1, 2]))) == [2, 3]
  end
end
