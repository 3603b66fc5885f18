defmodule Mlx.ErrorTest do
  use ExUnit.Case, async: true
  doctest Mlx.Error

  test "carries what went wrong and where" do
    native = %{
      kind: :shape,
      op: "add",
      operands: [{"f32", [2, 3]}, {"s64", []}],
      message: "they don't broadcast"
    }

    assert Mlx.Error.from_native(native) == %Mlx.Error{
             kind: :shape,
             op: "add",
             operands: [{"f32", {2, 3}}, {"s64", {}}],
             message: "they don't broadcast"
           }
  end

  test "is an exception with a message" do
    error =
      assert_raise Mlx.Error, "no room", fn ->
        raise Mlx.Error, kind: :memory, message: "no room"
      end

    assert %{kind: :memory, op: nil, operands: []} = error
    assert Exception.message(error) == "no room"
  end

  describe "a failed operation" do
    test "is told by what reads any result of it, with its operands" do
      tensor = Nx.iota({2, 3}, type: :s16, backend: Mlx.Backend)
      huge = Nx.broadcast(tensor, {1_000_000, 1_000_000, 2, 3})
      later = huge |> Nx.add(1) |> Nx.sum() |> Nx.negate()

      for failed <- [huge, later, Nx.add(later, 1)] do
        assert %Mlx.Error{kind: :memory, op: op, operands: [{"s16", {2, 3}} | _]} =
                 catch_error(Nx.to_binary(failed))

        assert op == "broadcast_to"
      end

      assert Nx.to_number(Nx.sum(tensor)) == 15
    end

    test "raises at the call with `dispatch: :sync`" do
      code = """
      defmodule User do
        def first(x), do: {:ok, Nx.add(x, 1)}
        def second(x) do
          {:ok,
           Nx.broadcast(x, {1_000_000, 1_000_000, 1_000})}
        end
      end
      """

      {output, 0} =
        Mlx.OwnVm.run("""
        Application.stop(:mlx)
        Application.put_env(:mlx, :dispatch, :sync)
        {:ok, _} = Application.ensure_all_started(:mlx)
        Code.compile_string(#{inspect(code)}, "lib/user.ex")
        {:ok, x} = User.first(Nx.tensor(1))

        try do
          User.second(x)
          raise "was not raised"
        rescue
          error in Mlx.Error ->
            IO.inspect({error.kind, error.op, error.operands})
            IO.puts(Exception.format_stacktrace(__STACKTRACE__))
        end

        alive.()
        """)

      assert output =~ ~s({:memory, "broadcast_to", [{"s32", {}}]})
      assert output =~ "lib/user.ex:5: User.second/1"
      assert output =~ "alive"
    end
  end
end
