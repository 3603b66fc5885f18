defmodule Mlx.SurvivalTest do
  # What ends another VM must not end this one, so each case runs in one of its own.
  use ExUnit.Case, async: true

  import Mlx.OwnVm

  test "integer division by zero and of the smallest by -1" do
    assert_alive("""
    for type <- [:s8, :s16, :s32, :s64, :u8, :u16, :u32, :u64], op <- [:quotient, :remainder] do
      low = Nx.Constants.min_finite(type)
      for divisor <- [0, 1] ++ if(match?("s" <> _, "\#{type}"), do: [-1], else: []) do
        Nx.to_binary(apply(Nx, op, [low, Nx.tensor(divisor, type: type)]))
      end
    end
    """)
  end

  test "shifts beyond the width" do
    assert_alive("""
    for op <- [:left_shift, :right_shift], count <- [8, 64, 1000, -1] do
      Nx.to_binary(apply(Nx, op, [Nx.tensor([1, -1], type: :s8), Nx.tensor(count, type: :s32)]))
    end
    """)
  end

  test "indices far out of range" do
    assert_alive("""
    x = Nx.iota({4, 4})
    for at <- [-1, 4, 2_000_000_000, -2_000_000_000, 9_000_000_000_000_000_000] do
      i = Nx.tensor([[at, at]], type: :s64)
      Nx.to_binary(Nx.gather(x, i))
      Nx.to_binary(Nx.take(x, Nx.tensor([at], type: :s64)))
      Nx.to_binary(Nx.take_along_axis(x, Nx.broadcast(Nx.tensor(at, type: :s64), {1, 4}), axis: 0))
      Nx.to_binary(Nx.indexed_add(x, i, Nx.tensor([1])))
      Nx.to_binary(Nx.indexed_put(x, i, Nx.tensor([1])))
      s = Nx.tensor(at, type: :s64)
      Nx.to_binary(Nx.slice(x, [s, 0], [2, 2]))
      Nx.to_binary(Nx.put_slice(x, [s, s], Nx.tensor([[1]])))
    end
    """)
  end

  test "singular matrices and NaN" do
    assert_alive("""
    for a <- [Nx.broadcast(0.0, {3, 3}), Nx.broadcast(Nx.Constants.nan(), {3, 3})] do
      for fun <- [&Nx.LinAlg.cholesky/1, &Nx.LinAlg.qr/1, &Nx.LinAlg.svd/1, &Nx.LinAlg.eigh/1,
                  &Nx.LinAlg.lu/1, &Nx.LinAlg.invert/1, &Nx.LinAlg.determinant/1] do
        try do Mlx.eval(fun.(a)) rescue _ -> :refused end
      end
    end
    """)
  end

  test "sizes beyond memory" do
    assert_alive("""
    :memory = refused.(fn -> Nx.to_number(Nx.sum(Nx.iota({1_048_576, 1_048_576}))) end)
    :memory = refused.(fn -> Mlx.eval(Nx.add(Nx.broadcast(1.0, {1_000_000, 1_000_000}), 1)) end)
    """)
  end

  test "a million unread operations" do
    assert_alive("""
    x = Enum.reduce(1..1_000_000, Nx.tensor(0), fn _, x -> Nx.add(x, 1) end)
    1_000_000 = Nx.to_number(x)
    """)
  end

  test "a tensor that was deallocated" do
    assert_alive("""
    x = Nx.iota({4})
    :ok = Nx.backend_deallocate(x)
    refused.(fn -> Nx.to_binary(Nx.add(x, 1)) end)
    """)
  end

  test "an owner killed with work in flight" do
    assert_alive("""
    m = Nx.broadcast(0.001, {600, 600})
    for _ <- 1..20 do
      pid = spawn(fn -> Nx.to_binary(Enum.reduce(1..10, m, fn _, x -> Nx.dot(x, m) end)) end)
      Process.sleep(2)
      Process.exit(pid, :kill)
    end
    """)
  end

  test "halting with work in flight keeps the exit status" do
    {output, status} =
      run("""
      m = Nx.broadcast(0.001, {800, 800})
      Enum.reduce(1..20, m, fn _, x -> Mlx.async_eval(Nx.dot(x, m)) end)
      System.halt(7)
      """)

    assert status == 7, output
  end
end
